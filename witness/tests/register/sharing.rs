//! Through its socket, through kills, and with clients and servers that are none.

use crate::asking::{PATIENCE, listed, lost, told};
use replication::{ReadAnswer, Record, Revision, Seen, SwapAnswer};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use units::{Epoch, GroupId, SiteId};
use witness::{Register, RegisterClient, RegisterError, RegisterOptions, RegisterServer, Witness};

const GROUP: GroupId = GroupId(7);

/// Tells this program that it is the server which a test kills, and of which folder.
const CHILD: &str = "ALJIBE_TEST_REGISTER";

/// A folder of which the disk is never waited for, where there is one: all that is done to a server here is `kill -9`.
fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

async fn seen(client: &RegisterClient, group: GroupId) -> Option<Seen> {
    let (seen, is_frail) = told(|| client.read(group)).await;
    assert!(!is_frail, "a register is never frail");
    seen
}

/// Has a change won that nobody else is in the way of: one of which nobody knows is looked for, and asked for again.
async fn win<A: Future<Output = SwapAnswer>>(swap: impl Fn() -> A, wanted: Seen) {
    let until = Instant::now() + PATIENCE;
    let mut is_unsure = false;
    loop {
        match swap().await {
            SwapAnswer::Won { revision } => return assert_eq!(revision, wanted.revision),
            SwapAnswer::Lost { found } => return assert!(is_unsure && found == Some(wanted), "lost to {found:?}"),
            SwapAnswer::Unknown => assert!(Instant::now() < until, "the change is never answered"),
        }
        is_unsure = true;
    }
}

fn record(epoch: u64, primary: u8) -> Record {
    Record { epoch: Epoch(epoch), primary: SiteId(primary), partner: None, is_sole: false, lineage: 1, fork: None }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("register.sock")
}

fn open(folder: &Path) -> Result<Register, RegisterError> {
    Register::open(&folder.join("register"), RegisterOptions::default())
}

/// A server in this process. Ends when told.
struct Server {
    folder: TempDir,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_in(memory_folder()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        let server = RegisterServer::bind(open(folder.path()).unwrap(), &socket(folder.path())).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { folder, stop, serving }
    }

    fn client(&self) -> RegisterClient {
        RegisterClient::new(socket(self.folder.path()))
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(socket(self.folder.path())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        self.folder
    }
}

/// P4. Two daemons of a machine see one register; what it answered is there when its server is started anew, and a client goes on.
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_share_a_register() {
    let server = Server::start().await;
    let (one, other) = (Witness::Register(server.client()), Witness::Register(server.client()));
    let is_there = |seen| (Some(seen), false);
    assert_eq!(told(|| one.read(GROUP)).await, (None, false));
    let first = Seen { revision: Revision(1), record: record(1, 1) };
    win(|| one.swap(GROUP, None, &first.record), first).await;
    assert_eq!(told(|| other.read(GROUP)).await, is_there(first));
    for late in [record(1, 2), first.record] {
        assert_eq!(lost(|| other.swap(GROUP, None, &late)).await, Some(first));
    }
    let folder = server.stop().await;
    assert_eq!(one.read(GROUP).await, ReadAnswer::Unreachable);
    assert_eq!(one.swap(GROUP, Some(first.revision), &record(2, 1)).await, SwapAnswer::Unknown);
    one.list().await.unwrap_err();
    let server = Server::start_in(folder).await;
    assert_eq!(told(|| one.read(GROUP)).await, is_there(first));
    let second = Seen { revision: Revision(2), record: record(2, 2) };
    win(|| other.swap(GROUP, Some(first.revision), &second.record), second).await;
    assert_eq!((one.cluster(), server.stop().await.path().exists()), (None, true));
}

/// P4. Of many that change one revision at once exactly one wins, and the others are told who.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_race_one_wins() {
    let server = Server::start().await;
    let clients: Vec<RegisterClient> = (0..2).map(|_| server.client()).collect();
    let until = Instant::now() + PATIENCE;
    let (mut round, mut known) = (0, 0);
    while known < 50 {
        assert!(Instant::now() < until, "{known} of {round} rounds were answered in time");
        round += 1;
        let expected = seen(&clients[0], GROUP).await.map(|seen| seen.revision);
        let records: Vec<Record> = (1..=2).map(|site| record(round, site)).collect();
        let (a, b) =
            tokio::join!(clients[0].swap(GROUP, expected, &records[0]), clients[1].swap(GROUP, expected, &records[1]));
        let revision = Revision(expected.map_or(0, |revision| revision.0) + 1);
        let won = SwapAnswer::Won { revision };
        let lost = |record| SwapAnswer::Lost { found: Some(Seen { revision, record }) };
        let is_right = (a == won && b == lost(records[0])) || (b == won && a == lost(records[1]));
        let are_known = a != SwapAnswer::Unknown && b != SwapAnswer::Unknown;
        assert!(is_right || !are_known, "round {round}: {a:?} {b:?}");
        known += usize::from(are_known);
    }
}

/// P4. Of more changes at once than a client has connections one wins, too, and all are answered.
#[tokio::test(flavor = "multi_thread")]
async fn of_forty_that_race_one_wins() {
    let server = Server::start().await;
    let client = std::sync::Arc::new(server.client());
    let until = Instant::now() + PATIENCE;
    // A group of its own each time, until a second is enough for all of one.
    for group in 8.. {
        assert!(Instant::now() < until, "a second is never enough");
        let mut asks = tokio::task::JoinSet::new();
        for site in 1..=40 {
            let client = std::sync::Arc::clone(&client);
            asks.spawn(async move { client.swap(GroupId(group), None, &record(1, site)).await });
        }
        let answers = asks.join_all().await;
        let won = answers.iter().filter(|answer| matches!(answer, SwapAnswer::Won { .. })).count();
        let lost = answers.iter().filter(|answer| matches!(answer, SwapAnswer::Lost { found: Some(_) })).count();
        assert!(won <= 1, "{answers:?}");
        if !answers.contains(&SwapAnswer::Unknown) {
            assert_eq!((won, won + lost), (1, answers.len()), "{answers:?}");
            return;
        }
    }
}

/// P4, P8. Clients that were busy and rest keep nobody from the register, and those that are silent not for long.
#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_lock_nobody_out() {
    let mut server = Server::start().await;
    let until = Instant::now() + PATIENCE;
    // Who is locked out is let in once they have been silent for long: that all is answered at once must be seen, with clients that
    // are new whenever the machine was too slow for it.
    while !busy_clients_rest(&server).await {
        assert!(Instant::now() < until, "clients that rest keep others out");
        server = Server::start().await;
    }
    // As many as are served at once, and more.
    let silent: Vec<UnixStream> = (0..80).map(|_| server.raw()).collect();
    while server.client().read(GROUP).await != ReadAnswer::Nothing {
        assert!(Instant::now() < until, "the register never answers");
    }
    drop(silent);
}

/// Whether all questions of clients that keep their connections are answered in time, and one of another client.
async fn busy_clients_rest(server: &Server) -> bool {
    let clients: Vec<_> = (0..6).map(|_| std::sync::Arc::new(server.client())).collect();
    for client in &clients {
        let mut asks = tokio::task::JoinSet::new();
        for group in 0..40 {
            let client = std::sync::Arc::clone(client);
            asks.spawn(async move { client.read(GroupId(group)).await });
        }
        if !asks.join_all().await.iter().all(|answer| *answer == ReadAnswer::Nothing) {
            return false;
        }
    }
    server.client().read(GROUP).await == ReadAnswer::Nothing
}

/// P4. All groups are listed, page by page.
#[tokio::test(flavor = "multi_thread")]
async fn all_groups_are_listed() {
    let folder = memory_folder();
    let mut register = open(folder.path()).unwrap();
    // More than two pages of 128.
    for group in 0..300 {
        register.swap(GroupId(group), None, &record(group + 1, 1)).unwrap();
    }
    drop(register);
    let server = Server::start_in(folder).await;
    let client = server.client();
    let listed = listed(|| client.list()).await;
    let found: Vec<_> = listed.into_iter().map(|listed| (listed.group.0, listed.seen.unwrap().record)).collect();
    assert_eq!(found, (0..300).map(|group| (group, record(group + 1, 1))).collect::<Vec<_>>());
}

/// P4, P8. Bytes that are no request end their own connection, and nobody else's; what is only begun does, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_none_harms_nobody() {
    let server = Server::start().await;
    let client = server.client();
    let there = Seen { revision: Revision(1), record: record(1, 1) };
    win(|| client.swap(GROUP, None, &there.record), there).await;
    let too_long = [&[0xff, 0xff][..], &[b'x'; 100]].concat();
    let noise: Vec<u8> = (0..40).collect();
    for bytes in [&[0, 0][..], &[0, 1, 99], &[0, 9, 1, 0], &too_long, &noise, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = server.raw();
        // It may hang up before all is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        // The end, or a reset where bytes were left unread.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{bytes:?}: {answer:?}");
    }
    // More silent connections than are served at once, and then gone: they keep others waiting, for as long as they are there.
    let silent: Vec<UnixStream> = (0..80).map(|_| server.raw()).collect();
    drop(silent);
    assert_eq!(seen(&client, GROUP).await, Some(there));
    // Hanging up in the middle of a request and before an answer.
    server.raw().write_all(&[0, 9, 1]).unwrap();
    server.raw().write_all(&witness::Request::Read { group: GROUP }.encode()).unwrap();
    assert_eq!(seen(&server.client(), GROUP).await, Some(there));
}

/// P4, P8. The socket is its user's alone, a left-over one is replaced, and one that somebody listens on is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_one_server() {
    let folder = memory_folder();
    drop(std::os::unix::net::UnixListener::bind(socket(folder.path())).unwrap());
    let server = Server::start_in(folder).await;
    let path = socket(server.folder.path());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(open(server.folder.path()), Err(RegisterError::InUse { .. })));
    let other = memory_folder();
    let error = RegisterServer::bind(open(other.path()).unwrap(), &path).await.unwrap_err();
    assert!(matches!(error, RegisterError::SocketInUse { .. }), "{error}");
    let file = other.path().join("file");
    fs::write(&file, "mine").unwrap();
    RegisterServer::bind(open(other.path()).unwrap(), &file).await.unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    server.client().swap(GROUP, None, &record(1, 1)).await;
    let folder = server.stop().await;
    assert!(!path.exists());
    drop(folder);
}

/// P4. A socket of which it is not known that nobody listens is left alone, and so is one that has taken the own one's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_another_one_is_left_alone() {
    let folder = memory_folder();
    let path = socket(folder.path());
    // Its queue is full: nobody can connect, and somebody listens.
    let busy = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&busy, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&busy, 0).unwrap();
    let queued = UnixStream::connect(&path).unwrap();
    let error = RegisterServer::bind(open(folder.path()).unwrap(), &path).await.unwrap_err();
    assert!(matches!(error, RegisterError::System { .. }), "{error}");
    drop((queued, busy));
    let server = Server::start_in(folder).await;
    // With its socket gone the path is held all the same.
    fs::remove_file(&path).unwrap();
    let other = memory_folder();
    let error = RegisterServer::bind(open(other.path()).unwrap(), &path).await.unwrap_err();
    assert!(matches!(error, RegisterError::SocketInUse { .. }), "{error}");
    let stranger = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let folder = server.stop().await;
    assert!(path.exists());
    drop(folder);
    drop(stranger);
}

/// P4. A server that answers what was not asked, nonsense or nothing leaves changes unknown and reads unanswered.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_none_is_not_believed() {
    let won = witness::Answer::Won(Revision(5)).encode();
    let nothing = witness::Answer::Read(None).encode();
    let failed = witness::Answer::Failed { reason: "poisoned".to_owned() }.encode();
    for (answer, is_read) in [(won, false), (nothing, true), (failed, false), (vec![0, 1, 77], false), (vec![], false)]
    {
        let folder = memory_folder();
        let listener = std::os::unix::net::UnixListener::bind(socket(folder.path())).unwrap();
        let is_silent = answer.is_empty();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // A client that has given up has gone.
                let _ = stream.read_exact(&mut [0; 3]).and_then(|()| stream.write_all(&answer));
                kept.extend(is_silent.then_some(stream));
            }
        });
        let client = RegisterClient::new(socket(folder.path()));
        if is_read {
            assert_eq!(seen(&client, GROUP).await, None);
        } else {
            assert_eq!(timeout(PATIENCE, client.read(GROUP)).await.unwrap(), ReadAnswer::Unreachable);
        }
        let swapped = timeout(PATIENCE, client.swap(GROUP, None, &record(1, 1))).await.unwrap();
        assert!(matches!(swapped, SwapAnswer::Unknown | SwapAnswer::Won { revision: Revision(5) }), "{swapped:?}");
    }
}

/// The server that [`what_was_answered_survives_kills`] kills: a test of its own program, which does nothing when it is run as one.
#[test]
fn serves_as_a_child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = RegisterServer::bind(open(&folder).unwrap(), &socket(&folder)).await.unwrap();
        server.serve(std::future::pending()).await;
    });
}

/// A server in a process of its own.
struct Victim(Child);

impl Victim {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sharing::serves_as_a_child", "--nocapture"]).env(CHILD, folder);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// P1, P4. Through `kill -9` at any moment: what was answered is there, what was not is there or is not, and nothing else ever is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_kills() {
    let folder = memory_folder();
    let client = RegisterClient::new(socket(folder.path()));
    let mut history = History { client: &client, known: None, epoch: 0, won: 0, landed: 0 };
    let until = Instant::now() + PATIENCE;
    // Until at least one kill has come between a change and its answer.
    for life in 0.. {
        if life >= 25 && history.landed > 0 {
            break;
        }
        assert!(Instant::now() < until, "no kill of {life} came between a change and its answer");
        let mut victim = Victim::start(folder.path());
        history.look(seen(&client, GROUP).await);
        let mut is_answered = true;
        for _ in 0..life % 4 {
            // A disk that takes longer than a second is no mistake of the register's.
            is_answered = is_answered && history.change().await;
        }
        let mut delay = Box::pin(sleep(Duration::from_micros(300 * (life % 13))));
        let mut is_killed = false;
        while is_answered {
            let change = history.change();
            tokio::pin!(change);
            is_answered = tokio::select! {
                is_answered = &mut change => is_answered,
                () = &mut delay, if !is_killed => {
                    victim.0.kill().unwrap();
                    is_killed = true;
                    change.await
                }
            };
        }
    }
    assert!(history.won >= 25, "only {} changes were won", history.won);
}

/// What was asked of the register and what it answered. Nobody else changes anything.
struct History<'a> {
    client: &'a RegisterClient,
    known: Option<Seen>,
    epoch: u64,
    won: usize,
    /// Changes that were not answered, and found in force.
    landed: usize,
}

impl History<'_> {
    /// After a kill: there is what was known, or what was asked for last.
    fn look(&mut self, found: Option<Seen>) {
        if found != self.known {
            let revision = Revision(self.known.map_or(0, |seen| seen.revision.0) + 1);
            assert_eq!(found, Some(Seen { revision, record: record(self.epoch, 1) }), "known was {:?}", self.known);
            self.landed += 1;
        }
        self.known = found;
    }

    /// Asks for a change; whether it was answered.
    async fn change(&mut self) -> bool {
        self.epoch += 1;
        let change = record(self.epoch, 1);
        match self.client.swap(GROUP, self.known.map(|seen| seen.revision), &change).await {
            SwapAnswer::Won { revision } => {
                self.won += 1;
                assert_eq!(revision.0, self.known.map_or(0, |seen| seen.revision.0) + 1);
                self.known = Some(Seen { revision, record: change });
                true
            }
            SwapAnswer::Lost { found } => panic!("lost to {found:?}, and nobody else changes anything"),
            SwapAnswer::Unknown => false,
        }
    }
}
