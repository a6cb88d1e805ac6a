//! `underpass daemon`: the privileged half.

use std::path::PathBuf;

use underpass_ctl::daemon::{Config, server};

use super::client::socket_path;
use super::failure::Failure;

/// Be the daemon: hold the privilege that moving connections takes, for programs that have none.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Runs as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_SYS_ADMIN. Root and the members of group\n\
                        underpass may connect. Programs go on when the daemon ends, and come back to the next one.\n\n\
                        Privileged programs start a daemon by themselves where none runs; it ends with its last client.\n\n\
                        Examples:\n  underpass daemon --foreground\n  \
                        underpass daemon --foreground --socket /tmp/underpass.sock --config ./underpass.toml\n\n\
                        Settings, every key optional:\n  [interfaces]\n  allow = [\"eth*\"]    # only these\n  deny = [\"eth7\"]     # never these\n  \
                        [socket]\n  group = \"underpass\"\n  mode = 0o660"
)]
pub struct Args {
    /// Where to listen [default: UNDERPASS_SOCKET, or /run/underpass/control.sock].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Settings (TOML): interfaces, group, mode of the socket.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Started by a person or a supervisor: say what happens on stderr.
    #[arg(long)]
    foreground: bool,
    /// End when the last client has gone.
    #[arg(long)]
    on_demand: bool,
}

/// Runs the subcommand until a signal ends the daemon.
pub fn main(args: Args) -> Result<(), Failure> {
    let config = Config {
        socket: socket_path(args.socket.as_deref()),
        config_file: args.config,
        foreground: args.foreground,
        on_demand: args.on_demand,
    };
    server::run(config).map_err(|error| match error.exit_code() {
        2 => Failure::Usage(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    })
}
