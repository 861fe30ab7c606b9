//! An NBD server that stops, lies or breaks the protocol where a test wants it to.

use proto::nbd::constants::{
    INIT_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, REPLY_FLAG_DONE, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, chunk, command, info, option, option_reply,
};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It answers reads up to the gate, and keeps those beyond it waiting.
    Gated,
    /// It says nothing from the beginning on.
    Mute,
    /// It greets, and then says nothing.
    Greets,
    /// It greets as servers did before options.
    Oldstyle,
    /// It is something else.
    Stranger,
    /// It says that the export has this size.
    Sized(u64),
    /// It answers reads beyond the gate with this error.
    Fails(u32),
    /// It hangs up instead of an answer to a read beyond the gate.
    HangsUp,
    /// It answers reads beyond the gate with more than was asked for.
    Overflows,
    /// It says that an extent of the export is longer than all numbers, and that all of it is data.
    EndlessExtent,
    /// It tells no extents where it is asked for them.
    NoExtents,
}

/// A server of one export on a unix socket. It ends with the test's process.
pub(crate) struct FakeSource {
    socket: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    content: Vec<u8>,
    behaviour: Mutex<Behaviour>,
    /// Reads that end behind it are not answered.
    gate: Mutex<usize>,
    moved: Condvar,
    reads: Mutex<Vec<u64>>,
}

impl FakeSource {
    /// Serves `content`, all of it behind the gate.
    pub(crate) fn start(folder: &Path, content: Vec<u8>, behaviour: Behaviour) -> Self {
        let socket = folder.join("fake.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (behaviour, gate, reads) = (Mutex::new(behaviour), Mutex::new(0), Mutex::default());
        let shared = Arc::new(Shared { content, behaviour, gate, moved: Condvar::new(), reads });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&served);
                // A client that goes in the middle is no fault of the server's.
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { socket, shared }
    }

    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket.display())
    }

    /// Moves the gate.
    pub(crate) fn open_to(&self, gate: usize) {
        *self.shared.gate.lock().unwrap() = gate;
        self.shared.moved.notify_all();
    }

    /// Connections from now on are served like this, and reads that wait at the gate fail if this is an error.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Takes where reads began since this was last asked.
    pub(crate) fn take_reads(&self) -> Vec<u64> {
        std::mem::take(&mut self.shared.reads.lock().unwrap())
    }
}

impl Shared {
    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let behaviour = *self.behaviour.lock().unwrap();
        if behaviour == Behaviour::Stranger {
            return stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n");
        }
        let mut greeting = INIT_MAGIC.to_be_bytes().to_vec();
        if behaviour == Behaviour::Oldstyle {
            greeting.extend(OLDSTYLE_MAGIC.to_be_bytes());
            greeting.extend([0; 136]);
            return stream.write_all(&greeting);
        }
        greeting.extend(OPTION_MAGIC.to_be_bytes());
        greeting.extend(3_u16.to_be_bytes());
        if behaviour != Behaviour::Mute {
            stream.write_all(&greeting)?;
        }
        if matches!(behaviour, Behaviour::Mute | Behaviour::Greets) {
            return stream.read_to_end(&mut Vec::new()).map(drop);
        }
        take::<4>(&mut stream)?;
        while !self.take_option(&mut stream, behaviour)? {}
        while self.take_request(&mut stream, behaviour)? {}
        Ok(())
    }

    /// Answers an option; true when requests follow.
    fn take_option(&self, stream: &mut UnixStream, behaviour: Behaviour) -> io::Result<bool> {
        let _magic = take::<8>(stream)?;
        let number = u32::from_be_bytes(take(stream)?);
        let len = u32::from_be_bytes(take(stream)?);
        stream.read_exact(&mut vec![0; len as usize])?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut out = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
            out.extend([number, kind, u32::try_from(data.len()).unwrap()].iter().flat_map(|field| field.to_be_bytes()));
            out.extend(data);
            stream.write_all(&out)
        };
        let has_extents = matches!(behaviour, Behaviour::EndlessExtent | Behaviour::NoExtents);
        match number {
            option::STRUCTURED_REPLY if has_extents => reply(option_reply::ACK, &[])?,
            option::SET_META_CONTEXT if has_extents => {
                reply(option_reply::META_CONTEXT, b"\0\0\0\x07base:allocation")?;
                reply(option_reply::ACK, &[])?;
            }
            option::GO => {
                let size = if let Behaviour::Sized(size) = behaviour { size } else { self.content.len() as u64 };
                let mut fact = info::EXPORT.to_be_bytes().to_vec();
                fact.extend(size.to_be_bytes());
                // Has flags; read-only.
                fact.extend(3_u16.to_be_bytes());
                reply(option_reply::INFO, &fact)?;
                reply(option_reply::ACK, &[])?;
                return Ok(true);
            }
            _ => reply(option_reply::ERR_UNSUP, &[])?,
        }
        Ok(false)
    }

    /// Answers a request; false when the connection ends.
    fn take_request(&self, stream: &mut UnixStream, behaviour: Behaviour) -> io::Result<bool> {
        let header = take::<28>(stream)?;
        let number = u16::from_be_bytes(*header[6..].first_chunk().unwrap());
        let cookie: [u8; 8] = *header[8..].first_chunk().unwrap();
        let offset = u64::from_be_bytes(*header[16..].first_chunk().unwrap());
        let len = u32::from_be_bytes(*header[24..].first_chunk().unwrap());
        match number {
            command::READ => self.read(stream, behaviour, cookie, (offset, len)),
            command::BLOCK_STATUS => {
                let mut extent = 7_u32.to_be_bytes().to_vec();
                if behaviour == Behaviour::EndlessExtent {
                    extent.extend(u32::MAX.to_be_bytes());
                    extent.extend([0; 4]);
                }
                write_chunk(stream, chunk::BLOCK_STATUS, cookie, &extent)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn read(
        &self,
        stream: &mut UnixStream,
        behaviour: Behaviour,
        cookie: [u8; 8],
        (offset, len): (u64, u32),
    ) -> io::Result<bool> {
        self.reads.lock().unwrap().push(offset);
        let from = usize::try_from(offset).unwrap();
        let range = from..from + len as usize;
        let simple = |error: u32| [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie].concat();
        if range.end > *self.gate.lock().unwrap() {
            if let Behaviour::Fails(error) = behaviour {
                return stream.write_all(&simple(error)).map(|()| true);
            }
            if behaviour == Behaviour::HangsUp {
                return Ok(false);
            }
            if behaviour == Behaviour::Overflows {
                let more = vec![0xee; len as usize + 4096];
                return stream.write_all(&[simple(0), more].concat()).map(|()| true);
            }
            let gate = self.gate.lock().unwrap();
            drop(self.moved.wait_while(gate, |gate| range.end > *gate).unwrap());
            // It may behave otherwise by now.
            if let Behaviour::Fails(error) = *self.behaviour.lock().unwrap() {
                return stream.write_all(&simple(error)).map(|()| true);
            }
        }
        let data = &self.content[range];
        if behaviour == Behaviour::EndlessExtent {
            let payload = [&offset.to_be_bytes()[..], data].concat();
            write_chunk(stream, chunk::OFFSET_DATA, cookie, &payload)?;
        } else {
            stream.write_all(&simple(0))?;
            stream.write_all(data)?;
        }
        Ok(true)
    }
}

/// The only chunk of a structured reply.
fn write_chunk(stream: &mut UnixStream, kind: u16, cookie: [u8; 8], payload: &[u8]) -> io::Result<()> {
    let mut out = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend([REPLY_FLAG_DONE, kind].iter().flat_map(|field| field.to_be_bytes()));
    out.extend(cookie);
    out.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend(payload);
    stream.write_all(&out)
}

fn take<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}
