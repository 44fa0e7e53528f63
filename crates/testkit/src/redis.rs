//! A Redis of one's own. It can be stopped and started again on its port, as the real one can.

use anyhow::Result;

use crate::daemon::{Daemon, free_port};

/// A Redis that runs, or is stopped. It ends when dropped, or with the process.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    daemon: Option<Daemon>,
}

impl Redis {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// Redis is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let mut redis = Self { port: free_port()?, daemon: None };
        redis.restart()?;
        Ok(redis)
    }

    /// Where it is, running or not.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Stops it; connections break.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts it again on the same port, empty.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let directory = tempfile::Builder::new().prefix("wt-redis-").tempdir()?.keep();
        let port = self.port.to_string();
        let command = ["redis-server", "--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        self.daemon = Some(Daemon::start(&directory, "KILL", &command, "Ready to accept connections")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    fn pongs(redis: &Redis) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", redis.port))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG\r\n")
        };
        ask().unwrap_or(false)
    }

    #[test]
    fn it_answers_stops_and_comes_back_at_the_same_address() {
        let mut redis = Redis::start().expect("start");
        assert!(pongs(&redis));
        redis.stop();
        assert!(!pongs(&redis));
        redis.restart().expect("restart");
        assert!(pongs(&redis));
    }
}
