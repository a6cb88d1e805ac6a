//! Language runtimes with event loops of their own: Python, Node.js, Java.

use crate::documents::documents;
use crate::programs::{program, python};
use crate::run::{Run, same_outcome};
use crate::watch::Leg;
use crate::{AUTO, EAGER, HERE};

const PORT: u16 = 9000;
const PORT_TEXT: &str = "9000";
const IPV6: &str = "::1";

/// A server and a client that are one program, run by an interpreter, each in a process of its own. What the client prints is
/// the outcome.
fn pair(promote: &'static str, interpreter: &str, name: &str, address: &str) {
    let path = program(name);
    same_outcome(promote, |run| {
        let _server = run.serve("server", &[interpreter, &path, "serve", address, PORT_TEXT], PORT);
        asked(run, &[interpreter, &path, "ask", address, PORT_TEXT])
    });
}

/// What a client prints.
fn asked(run: &Run<'_>, client: &[&str]) -> String {
    run.until_seen(&[Leg::on_lane(PORT)], || {
        let said = run.ask("client", client);
        assert!(!said.trim().is_empty(), "the client has nothing to say");
        said
    })
}

#[test]
fn python_asyncio() {
    pair(AUTO, "python3", "asyncio_echo.py", HERE);
}

#[test]
fn python_asyncio_eagerly() {
    pair(EAGER, "python3", "asyncio_echo.py", HERE);
}

#[test]
fn python_asyncio_over_ipv6() {
    pair(AUTO, "python3", "asyncio_echo.py", IPV6);
}

#[test]
fn python_http_server_and_clients() {
    same_outcome(AUTO, |run| {
        let root = documents(&run.dir()).display().to_string();
        let _server = python(run, "server", &["http_documents.py", "serve", HERE, PORT_TEXT, &root], PORT);
        asked(run, &["python3", &program("http_documents.py"), "ask", HERE, PORT_TEXT])
    });
}

#[test]
fn python_selectors() {
    pair(AUTO, "python3", "selectors_echo.py", HERE);
}

#[test]
fn node_http_with_a_kept_connection() {
    pair(AUTO, "node", "http_echo.js", HERE);
}

#[test]
fn node_net_with_half_open_ends() {
    pair(AUTO, "node", "net_echo.js", HERE);
}

/// Both ends belong to one process and one thread: whoever waits for the other end waits for itself.
#[test]
fn python_asyncio_with_both_ends_in_one_process() {
    same_outcome(AUTO, |run| {
        let words = ["python3", &program("asyncio_echo.py"), "both", HERE, PORT_TEXT];
        asked(run, &words)
    });
}

#[test]
fn java_channels_and_sockets() {
    same_outcome(AUTO, |run| {
        let classes = run.dir().join("classes").display().to_string();
        run.ask("javac", &["javac", "-d", &classes, &program("Echo.java")]);
        let java = ["java", "-XX:TieredStopAtLevel=1", "-cp", &classes, "Echo"];
        let _server = run.serve("server", &[&java[..], &["serve", HERE, PORT_TEXT]].concat(), PORT);
        asked(run, &[&java[..], &["ask", HERE, PORT_TEXT]].concat())
    });
}
