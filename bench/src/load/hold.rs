//! Connections that are open, used or not, and then silent.

use std::net::{SocketAddr, TcpListener, TcpStream};

use clap::Args;

use crate::Outcome;
use crate::pingpong::{echo, round_trip};
use crate::tcp::Connection;

/// Bytes of a message.
const MESSAGE: usize = 64;

/// Echoes, a thread for each connection, until ended.
#[derive(Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
}

/// Prints 'silent' when it has used its connections, and leaves them alone until ended: it is in no call on them.
#[derive(Args)]
pub struct Hold {
    /// Where the server is.
    #[arg(long)]
    connect: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// 64-byte messages that go and come back on each connection.
    #[arg(long, default_value_t = 1)]
    rounds: u64,
}

impl Serve {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let listener = TcpListener::bind(self.bind)?;
        println!("listening {}", listener.local_addr()?);
        loop {
            let (stream, peer) = listener.accept()?;
            let mut connection = Connection::new(stream, false)?;
            std::thread::spawn(move || {
                if let Err(error) = echo(&mut connection, &mut [0; 2 * MESSAGE]) {
                    eprintln!("{peer}: {error}");
                }
            });
        }
    }
}

impl Hold {
    /// Runs until ended.
    pub fn run(&self) -> Outcome {
        let open = |_| Connection::new(TcpStream::connect(self.connect)?, false);
        let mut connections = (0..self.connections).map(open).collect::<std::io::Result<Vec<Connection>>>()?;
        let mut buffers = (vec![0x5a; MESSAGE], vec![0; MESSAGE]);
        for number in 0..self.rounds {
            for connection in &mut connections {
                round_trip(connection, &mut buffers, number)?;
            }
        }
        println!("silent");
        loop {
            std::thread::park();
        }
    }
}
