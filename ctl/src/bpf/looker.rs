//! A thread that reads an iterator to its end. The kernel locks each socket that it passes, and somebody may hold one for long: a program
//! that sends from memory which a stalled file system has to bring. Nobody else is to wait for that.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

/// The thread; it ends when this is dropped, at the latest when the look is over that it is at.
pub struct Looker {
    ask: SyncSender<File>,
    answers: Receiver<io::Result<()>>,
    /// It was asked and has not answered.
    away: bool,
}

impl Looker {
    /// Starts it, deaf to signals: these are for those who wait for them.
    pub fn start() -> io::Result<Self> {
        let (ask, asked) = sync_channel::<File>(1);
        let (answer, answers) = sync_channel(1);
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let started = std::thread::Builder::new()
            .name("looker".into())
            .spawn(move || while asked.recv().is_ok_and(|iterator| answer.send(to_the_end(iterator)).is_ok()) {});
        before.thread_set_mask()?;
        started.map(|_| Self { ask, answers, away: false })
    }

    /// Has it read `iterator`, and waits for that no longer than `limit`. `None`: it is not done, or still at the one before.
    pub fn look(&mut self, iterator: File, limit: Duration) -> io::Result<Option<()>> {
        if self.away && self.answers.try_recv().is_err() {
            return Ok(None);
        }
        match self.ask.try_send(iterator) {
            Ok(()) => self.away = true,
            Err(TrySendError::Full(_)) => return Ok(None),
            Err(TrySendError::Disconnected(_)) => return Err(gone()),
        }
        match self.answers.recv_timeout(limit) {
            Ok(answer) => {
                self.away = false;
                answer.map(Some)
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

/// Reading is what makes it go on. It says one byte when it has found what it looked for.
fn to_the_end(mut iterator: File) -> io::Result<()> {
    loop {
        match iterator.read(&mut [0]) {
            Ok(_) => return Ok(()),
            // After a million sockets the kernel wants to be asked again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that reads it has ended")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn nobody_waits_for_one_that_is_stuck_and_it_comes_back() {
        const LONG: Duration = Duration::from_secs(20);
        let mut looker = Looker::start().unwrap();
        let (quick, mut says) = pipe();
        says.write_all(b"!").unwrap();
        assert_eq!(looker.look(quick, LONG).unwrap(), Some(()));
        let (stuck, mut later) = pipe();
        let start = Instant::now();
        assert_eq!(looker.look(stuck, Duration::from_millis(10)).unwrap(), None);
        let (waiting, _open) = pipe();
        assert_eq!(looker.look(waiting, LONG).unwrap(), None, "it is still at the one before");
        assert!(start.elapsed() < LONG / 2);
        later.write_all(b"!").unwrap();
        let end = Instant::now() + LONG;
        loop {
            let (over, closed) = pipe();
            drop(closed);
            match looker.look(over, LONG).unwrap() {
                Some(()) => break,
                None => assert!(Instant::now() < end, "it does not come back"),
            }
        }
    }
}
