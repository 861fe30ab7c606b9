//! One connection of a life: a task that reads and one that writes.

use crate::config::Times;
use crate::life::Life;
use crate::news::{News, Why};
use crate::outbox::Outbox;
use crate::statistics::Statistics;
use replication::wire::{Frame, Incoming, Outgoing};
use std::io::{self, IoSlice};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use units::GroupId;

/// Bytes that are received before they are looked at. What belongs to a batch is received where it stays.
const INPUT_BYTES: usize = 64 << 10;
const _: () = assert!(INPUT_BYTES >= Incoming::INPUT_BYTES);

/// The connection is lost, in words.
pub(crate) fn lost(connection: u16, reason: &str) -> Why {
    Why::Lost { connection, reason: reason.to_owned() }
}

/// What an error of a connection means: TLS's own are told apart.
pub(crate) fn why_of(connection: u16, error: &io::Error) -> Why {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.map_or_else(|| lost(connection, &error.to_string()), |error| Why::Tls(error.to_string()))
}

/// What was received and not looked at: `bytes[start..end]`.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Says how much of it is left.
    const fn keep(&mut self, left: usize) {
        self.start = self.end - left;
    }

    /// Memory for what comes next; never empty, since a frame fits.
    fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }
}

/// Reads a connection.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    stream: S,
    connection: u16,
    life: Arc<Life>,
    incoming: Incoming,
    input: Input,
    heard: Instant,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// `leftover` came behind the opening.
    pub(crate) fn new(stream: S, connection: u16, (life, leftover): (Arc<Life>, &[u8])) -> Self {
        let mut bytes = leftover.to_vec();
        bytes.resize(INPUT_BYTES.max(leftover.len()), 0);
        let input = Input { bytes, start: 0, end: leftover.len() };
        Self { stream, connection, life, incoming: Incoming::default(), input, heard: Instant::now() }
    }

    /// Reads until the connection is lost, or what comes is against the protocol.
    pub(crate) async fn run(mut self) -> Why {
        match self.read_all().await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn read_all(&mut self) -> Result<std::convert::Infallible, Why> {
        let life = Arc::clone(&self.life);
        let outbox = life.outbox(self.connection).ok_or_else(|| lost(self.connection, "there is none"))?;
        let ping = life.shared.config.times.ping;
        let mut pause = std::pin::pin!(sleep(ping));
        loop {
            self.take_frames(outbox)?;
            tokio::select! {
                biased;
                received = receive(&mut self.stream, &mut self.incoming, &mut self.input) => self.on_received(&received)?,
                () = pause.as_mut() => {}
            }
            let now = Instant::now();
            // Also while there is always something to read.
            if now >= pause.deadline() {
                self.on_tick(now, outbox)?;
                pause.as_mut().reset(now + ping);
            }
        }
    }

    fn on_received(&mut self, received: &io::Result<usize>) -> Result<(), Why> {
        match received {
            Ok(0) => Err(lost(self.connection, "the other site has closed it without a word")),
            Ok(bytes) => {
                self.heard = Instant::now();
                Statistics::add(&self.life.shared.statistics.bytes_received, *bytes);
                Ok(())
            }
            Err(error) => Err(why_of(self.connection, error)),
        }
    }

    /// Hands on all frames that are there.
    fn take_frames(&mut self, outbox: &Outbox) -> Result<(), Why> {
        loop {
            let mut unread = self.input.unread();
            let taken = self.incoming.take(&mut unread, outbox.incoming_max());
            let left = unread.len();
            self.input.keep(left);
            let connection = self.connection;
            let Some(frame) = taken.map_err(|source| Why::Protocol { connection, source })? else { return Ok(()) };
            Statistics::add(&self.life.shared.statistics.frames_received, 1);
            self.on_frame(frame, outbox)?;
        }
    }

    fn on_frame(&self, frame: Frame, outbox: &Outbox) -> Result<(), Why> {
        match frame {
            Frame::Ping { number } => outbox.pong(number),
            Frame::Pong { number } => {
                outbox.progressed();
                self.on_pong(number);
            }
            Frame::Bye(bye) => return Err(Why::Bye(bye)),
            Frame::Credit { bytes } => {
                outbox.progressed();
                let has_room = outbox.credit(bytes).ok_or_else(|| self.misplaced("credit for what was never sent"))?;
                if has_room {
                    self.life.tell(News::Room { life: self.life.number, connection: self.connection });
                }
            }
            Frame::Say { .. } if self.connection == 0 => self.hand_on(frame),
            Frame::Say { .. } => return Err(self.misplaced("what a role machine says, on a data connection")),
            Frame::Align { group, .. }
            | Frame::Aligned { group, .. }
            | Frame::Want { group, .. }
            | Frame::Begins { group, .. }
            | Frame::Batch { group, .. }
            | Frame::Committed { group, .. }
            | Frame::MakeDurable { group, .. }
            | Frame::Has { group, .. }
            | Frame::FellOut { group, .. }
            | Frame::Enrol { group, .. }
            | Frame::Enrolled { group, .. }
            | Frame::Ask { group, .. }
            | Frame::Answer { group, .. } => {
                self.check_place(group)?;
                outbox.received(frame.payload_bytes());
                self.hand_on(frame);
            }
        }
        Ok(())
    }

    fn hand_on(&self, frame: Frame) {
        self.life.tell(News::Frame { life: self.life.number, frame });
    }

    /// One group's log is on one connection, or its order would be lost.
    fn check_place(&self, group: GroupId) -> Result<(), Why> {
        if self.life.connection_of(group) == self.connection {
            Ok(())
        } else {
            Err(self.misplaced("a frame of a group that belongs to another connection"))
        }
    }

    fn on_pong(&self, number: u64) {
        if self.connection == 0 {
            let took = self.life.slowness().answer(self.life.shared.now(), number);
            took.into_iter().for_each(|took| self.life.shared.statistics.set_rtt(took));
        }
    }

    const fn misplaced(&self, what: &'static str) -> Why {
        Why::Misplaced { connection: self.connection, what }
    }

    /// Asks whether the other site is there; gives it up when it was silent for too long, or has taken nothing for as long.
    fn on_tick(&self, now: Instant, outbox: &Outbox) -> Result<(), Why> {
        let Times { silence, ping, .. } = self.life.shared.config.times;
        if now.duration_since(self.heard) >= silence {
            return Err(Why::Silent { connection: self.connection, silence });
        }
        // The first of them may have come just behind some progress.
        if ping * outbox.tick().saturating_sub(1) >= silence {
            return Err(Why::Backlog { connection: self.connection });
        }
        if self.connection == 0 {
            self.judge(outbox);
        } else {
            outbox.ping(0);
        }
        Ok(())
    }

    /// The control connection's pings are those that are judged: on the others they wait behind batches.
    fn judge(&self, outbox: &Outbox) {
        let now = self.life.shared.now();
        let mut slowness = self.life.slowness();
        if !outbox.is_ping_waiting() {
            slowness.ask(now).into_iter().for_each(|number| outbox.ping(number));
        }
        let judged = slowness.tick(now);
        drop(slowness);
        if let Some(is_slow) = judged {
            Statistics::set(&self.life.shared.statistics.is_slow, u64::from(is_slow));
            self.life.tell(News::Slow { life: self.life.number, is_slow });
        }
    }
}

/// Receives into the batch under way, or into `input`. It may be given up.
async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    incoming: &mut Incoming,
    input: &mut Input,
) -> io::Result<usize> {
    if input.is_empty()
        && let Some(space) = incoming.space()
    {
        let bytes = stream.read(space).await?;
        incoming.advance(bytes);
        return Ok(bytes);
    }
    let bytes = stream.read(input.space()).await?;
    input.end += bytes;
    Ok(bytes)
}

/// Writes what is in the outbox of a connection, until its last frame.
pub(crate) async fn write<S: AsyncWrite + Unpin>(mut stream: S, life: Arc<Life>, connection: u16) -> Why {
    let Some(outbox) = life.outbox(connection) else { return lost(connection, "there is none") };
    let statistics = &life.shared.statistics;
    let mut frames = Vec::new();
    loop {
        let taken = outbox.take(&mut frames);
        if let Err(error) = write_all(&mut stream, &frames, outbox).await {
            // Whoever reads may find why: the other site's last words, or its alert. That ends the life, and closes this.
            let _ = timeout(life.shared.config.times.silence, outbox.closed()).await;
            return why_of(connection, &error);
        }
        Statistics::add(&statistics.frames_sent, frames.len());
        Statistics::add(&statistics.bytes_sent, taken.bytes);
        let has_written = !frames.is_empty();
        frames.clear();
        if taken.is_last {
            // The end of a life: nobody is left to be told of an error.
            let _ = stream.shutdown().await;
            return Why::Closing;
        }
        if !has_written {
            outbox.wait().await;
        } else if outbox.wrote(taken) {
            life.tell(News::Room { life: life.number, connection });
        }
    }
}

/// Writes frames, many at once and none copied, and flushes.
async fn write_all<S: AsyncWrite + Unpin>(stream: &mut S, frames: &[Outgoing], outbox: &Outbox) -> io::Result<()> {
    if frames.is_empty() {
        return Ok(());
    }
    let mut slices: Vec<IoSlice<'_>> = frames.iter().flat_map(Outgoing::slices).map(IoSlice::new).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let written = stream.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        outbox.progressed();
        IoSlice::advance_slices(&mut rest, written);
    }
    stream.flush().await
}
