//! How long a batch of one block and the answer that it is there take: over the link, with TLS on loopback, and in the same run over bare TCP
//! with the same number of bytes each way. Of the link once as its own tasks see it, and once as a thread does that asks and is woken. Takes turns,
//! so that what else the machine does hits all.
//!
//!     cargo run --release -p link --example rtt [ROUNDS]
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use link::{LifeNumber, Link, LinkConfig, LinkHandle, News, Sink, Times, TlsFiles, Trust};
use replication::wire::{Frame, Outgoing, VERSIONS};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};
use units::{Epoch, GroupId, Lsn, PoolId, SiteId};
use volume::buffer::Buffer;
use volume::engine::PeerLog;

type Failed = Box<dyn Error + Send + Sync>;

const GROUP: GroupId = GroupId(1);
/// Rounds of one kind before those of the other.
const TURN: usize = 500;

/// The primary: sends a batch, and the next one as soon as it hears that the other site has it, in the task that hears it.
#[derive(Default)]
struct Asks {
    handle: OnceLock<LinkHandle>,
    turn: Mutex<Turn>,
    told: OnceLock<mpsc::Sender<Told>>,
}

#[derive(Default)]
struct Turn {
    began: Option<Instant>,
    left: usize,
    took: Vec<Duration>,
}

enum Told {
    Up(LifeNumber),
    Took(Vec<Duration>),
}

impl Asks {
    fn turn(&self, life: LifeNumber, rounds: usize) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.took = Vec::with_capacity(rounds);
        turn.left = rounds;
        self.ask(life, &mut turn);
    }

    fn ask(&self, life: LifeNumber, turn: &mut Turn) {
        turn.began = Some(Instant::now());
        // One that is rejected is never answered, and the program says nothing.
        let _ = self.handle.get().map(|handle| handle.send(life, batch()));
    }

    fn tell(&self, told: Told) {
        let _ = self.told.get().map(|sender| sender.send(told));
    }
}

impl Sink for Asks {
    fn take(&self, news: News) {
        match news {
            News::Up { life, .. } => self.tell(Told::Up(life)),
            News::Frame { life, frame: Frame::Has { .. } } => {
                let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                let took = turn.began.map(|began| began.elapsed());
                turn.took.extend(took);
                turn.left -= 1;
                if turn.left > 0 {
                    self.ask(life, &mut turn);
                } else {
                    self.tell(Told::Took(std::mem::take(&mut turn.took)));
                }
            }
            News::Frame { .. } | News::Room { .. } | News::Slow { .. } | News::NotUp { .. } | News::Down { .. } => {}
        }
    }
}

/// The secondary: says at once that it has what came.
#[derive(Default)]
struct Answers(OnceLock<LinkHandle>);

impl Sink for Answers {
    fn take(&self, news: News) {
        if let (News::Frame { life, frame }, Some(handle)) = (news, self.0.get()) {
            handle.consumed(life, GROUP, frame.payload_bytes());
            // One that is lost with its life is asked for no more.
            let _ = handle.send(life, has());
        }
    }
}

fn has() -> Frame {
    let log = PeerLog { segment: None, appended: Lsn(1), durable: Lsn(1) };
    Frame::Has { group: GROUP, epoch: Epoch(1), log }
}

/// As the engine has it: a block that holds the header, and one of payload.
fn batch() -> Frame {
    Frame::Batch { group: GROUP, epoch: Epoch(1), buffers: vec![Buffer::zeroed(4096), Buffer::zeroed(4096)] }
}

fn config(site: u8, peer_address: Option<String>) -> LinkConfig {
    let pem = |name: String| -> PathBuf { Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pem").join(name) };
    LinkConfig {
        site: SiteId(site),
        peer: SiteId(3 - site),
        pool: PoolId([site; 16]),
        versions: VERSIONS,
        listen: Some(([127, 0, 0, 1], 0).into()),
        peer_address,
        tls: TlsFiles {
            certificate: pem(format!("site-{site}.pem")),
            key: pem(format!("site-{site}-key.pem")),
            trust: Trust::Authority(pem("authority.pem".to_owned())),
        },
        data_connections: 1,
        window_bytes: 64 << 20,
        queue_bytes: 64 << 20,
        times: Times::default(),
    }
}

/// A thread that answers each batch's bytes with an answer's.
fn bare_tcp(batch_bytes: usize, answer_bytes: usize) -> Result<TcpStream, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let (mut other, _) = listener.accept()?;
    other.set_nodelay(true)?;
    std::thread::spawn(move || {
        let (mut batch, answer) = (vec![0; batch_bytes], vec![0; answer_bytes]);
        while other.read_exact(&mut batch).and_then(|()| other.write_all(&answer)).is_ok() {}
    });
    Ok(stream)
}

fn show(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |per_mille: usize| took.get(took.len() * per_mille / 1000).map_or(0.0, |took| took.as_secs_f64() * 1e6);
    println!("{name:28} p50 {:7.1} us   p99 {:7.1} us   p99.9 {:8.1} us", at(500), at(990), at(999));
}

fn main() -> Result<(), Failed> {
    let rounds = std::env::args().nth(1).map_or(Ok(20_000), |rounds| rounds.parse::<usize>())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _guard = runtime.enter();
    let answers = Arc::new(Answers::default());
    let secondary = Link::start(config(2, None), Arc::<Answers>::clone(&answers))?;
    let _ = answers.0.set(secondary.handle());
    let (sender, receiver) = mpsc::channel();
    let asks = Arc::new(Asks::default());
    let _ = asks.told.set(sender);
    let address = secondary.listens_at().map(|address| address.to_string());
    let primary = Link::start(config(1, address), Arc::<Asks>::clone(&asks))?;
    let _ = asks.handle.set(primary.handle());
    let Told::Up(life) = receiver.recv()? else { return Err("it is not up".into()) };
    let bytes = [Outgoing::new(batch()).len(), Outgoing::new(has()).len()];
    let [batch_bytes, answer_bytes] = bytes;
    let mut tcp = bare_tcp(batch_bytes, answer_bytes)?;
    let (mut over_link, mut from_thread, mut over_tcp) = (Vec::new(), Vec::new(), Vec::new());
    let (request, mut answer) = (vec![0; batch_bytes], vec![0; answer_bytes]);
    while over_link.len() < rounds {
        asks.turn(life, TURN);
        if let Told::Took(took) = receiver.recv()? {
            over_link.extend(took);
        }
        for _ in 0..TURN {
            let began = Instant::now();
            asks.turn(life, 1);
            receiver.recv()?;
            from_thread.push(began.elapsed());
        }
        for _ in 0..TURN {
            let began = Instant::now();
            tcp.write_all(&request)?;
            tcp.read_exact(&mut answer)?;
            over_tcp.push(began.elapsed());
        }
    }
    println!("{} rounds of {batch_bytes} bytes, answered by {answer_bytes}", over_link.len());
    show("link, asked by its tasks", over_link);
    show("link, asked by a thread", from_thread);
    show("bare TCP, blocking threads", over_tcp);
    runtime.block_on(async {
        primary.close().await;
        secondary.close().await;
    });
    Ok(())
}
