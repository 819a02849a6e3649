//! The client of a drilldown on demand: one request, then line after line until the daemon closes. It is told apart
//! whether the daemon refused, was not there, or went away in between.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ask::{AskError, PATIENCE, connect, sort};
use crate::demand::{About, Wish};
use crate::event::Record;

/// Lists of 1,000 hosts, outside ends, services and flows have about 1 MB.
const LINE_BYTES_MAX: usize = 16 << 20;

/// What the daemon says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// The drilldown goes on; the first thing said.
    Begun(Begun),
    /// A record of the log's form, with its JSON text.
    Record(Box<Record>, String),
    /// There is no verdict, and nothing more to come.
    Refused(String),
}

/// A drilldown that goes on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Begun {
    /// Its id.
    pub drilldown: String,
    /// Where the account begins.
    pub started: Timestamp,
    /// What makes the answer less than it could be.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Record(Box<Record>),
    Begun(Begun),
    Refusal { error: String },
}

/// The daemon's answer, as it comes. Dropped, it ends the drilldown without a verdict.
#[derive(Debug)]
pub struct Conversation {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    partial: Vec<u8>,
    begun: bool,
}

impl Conversation {
    /// Asks for it. Within a runtime; it waits for the connection.
    pub fn open(path: &Path, wish: &Wish) -> Result<Conversation, AskError> {
        let request = match &wish.about {
            About::Counter(name) => json!({ "request": "drill", "counter": name }),
            About::Host(address) => json!({ "request": "drill", "host": address }),
        };
        let mut request = request;
        if let Some(lasting) = wish.lasting {
            request["seconds"] = lasting.as_secs_f64().into();
        }
        let failed = |operation| move |source: io::Error| sort(path, operation, source);
        let mut stream = connect(path, PATIENCE).map_err(failed("connect"))?;
        let sent = stream.write_all(format!("{request}\n").as_bytes());
        sent.map_err(failed("send the request"))?;
        stream
            .set_nonblocking(true)
            .map_err(failed("wait for the answer"))?;
        let stream = UnixStream::from_std(stream).map_err(failed("wait for the answer"))?;
        Ok(Conversation {
            path: path.to_owned(),
            stream: BufReader::new(stream),
            partial: Vec::new(),
            begun: false,
        })
    }

    /// The next thing said; the first must come soon. Nothing is lost where this is given up before it is through.
    pub async fn next(&mut self) -> Result<Said, AskError> {
        let patience = if self.begun { Duration::MAX } else { PATIENCE };
        let line = match timeout(patience, self.line()).await {
            Ok(line) => line?,
            Err(_) => {
                let path = self.path.clone();
                return Err(AskError::TimedOut { path, patience });
            }
        };
        self.begun = true;
        match serde_json::from_str(&line) {
            Ok(Line::Record(record)) => Ok(Said::Record(record, line)),
            Ok(Line::Begun(begun)) => Ok(Said::Begun(begun)),
            Ok(Line::Refusal { error }) => Ok(Said::Refused(error)),
            Err(error) => Err(sort(&self.path, "understand the answer", error.into())),
        }
    }

    /// Asks for the verdict, which is the last that is said.
    pub async fn end(&mut self) {
        // A daemon that is gone is noticed by what it does not say.
        let _ = self.stream.get_mut().shutdown().await;
    }

    async fn line(&mut self) -> Result<String, AskError> {
        let failed = |source| sort(&self.path, "read the answer", source);
        loop {
            let room = LINE_BYTES_MAX - self.partial.len();
            let mut limited = (&mut self.stream).take(room as u64);
            let read = limited.read_until(b'\n', &mut self.partial);
            let count = read.await.map_err(failed)?;
            if self.partial.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.partial);
                let text = String::from_utf8(line);
                let mut text = text.map_err(|error| failed(io::Error::other(error)))?;
                text.pop();
                return Ok(text);
            }
            if self.partial.len() >= LINE_BYTES_MAX {
                return Err(failed(io::Error::other("a line has no end")));
            }
            if count == 0 {
                return Err(AskError::Closed {
                    path: self.path.clone(),
                });
            }
        }
    }
}
