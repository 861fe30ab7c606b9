//! An iSCSI initiator of our own that says anything: PDUs built by hand, right or wrong, on as many connections as wanted.
//!
//! It takes from the crate `proto` the numbers of the protocol and the digest, and nothing that judges or negotiates, so that
//! one misunderstanding is not on both sides. What every answer must keep to is checked here: StatSN counts without a gap,
//! digests fit, MaxCmdSN does not go back. Spec: RFC 7143.

use proto::iscsi::constants::{RESERVED_TAG, opcode};
use proto::iscsi::{digest, padded};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than a target takes to close a connection for a reason, and shorter than the silence after which it does so for none.
const END_PATIENCE: Duration = Duration::from_secs(12);

/// Bits of a header's second byte: RFC 7143 11.3, 11.4, 11.7, 11.10, 11.12.
pub(crate) const FINAL: u8 = 0x80;
pub(crate) const CONTINUE: u8 = 0x40;
pub(crate) const READ: u8 = 0x40;
pub(crate) const WRITE: u8 = 0x20;
pub(crate) const OVERFLOW: u8 = 0x04;
pub(crate) const UNDERFLOW: u8 = 0x02;
pub(crate) const STATUS: u8 = 0x01;

/// Task attributes.
pub(crate) const SIMPLE: u8 = 1;
pub(crate) const ORDERED: u8 = 2;

const IMMEDIATE: u8 = 0x40;

/// A PDU, as its fields lie on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Pdu {
    pub(crate) bhs: [u8; 48],
    pub(crate) ahs: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Pdu {
    pub(crate) fn new(opcode: u8, flags: u8) -> Self {
        let mut bhs = [0; 48];
        (bhs[0], bhs[1]) = (opcode, flags);
        Self { bhs, ahs: Vec::new(), data: Vec::new() }
    }

    /// Puts bytes at a place of the header.
    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bhs[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn put_word(self, at: usize, word: u32) -> Self {
        self.put(at, &word.to_be_bytes())
    }

    pub(crate) fn with_data(mut self, data: &[u8]) -> Self {
        data.clone_into(&mut self.data);
        self
    }

    pub(crate) fn immediate(mut self) -> Self {
        self.bhs[0] |= IMMEDIATE;
        self
    }

    /// Of a command: more data follows unasked.
    pub(crate) fn not_final(mut self) -> Self {
        self.bhs[1] &= !FINAL;
        self
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bhs[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.bhs[0] & 0x3f
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.bhs[1] & flag != 0
    }

    pub(crate) fn itt(&self) -> u32 {
        self.word(16)
    }
}

pub(crate) fn lun(number: u8) -> [u8; 8] {
    [0, number, 0, 0, 0, 0, 0, 0]
}

/// A SCSI command for LUN 0, final; `flags` are READ, WRITE and the attribute.
pub(crate) fn command(flags: u8, (itt, cmd_sn): (u32, u32), expected_bytes: u32, cdb: &[u8]) -> Pdu {
    let numbered = Pdu::new(opcode::COMMAND, FINAL | flags).put_word(16, itt).put_word(24, cmd_sn);
    numbered.put_word(20, expected_bytes).put(32, cdb)
}

/// A Data-Out for LUN 0; `ttt` is what the R2T said, or RESERVED_TAG.
pub(crate) fn data_out(is_final: bool, (itt, ttt): (u32, u32), data_sn: u32, offset: u32, data: &[u8]) -> Pdu {
    let tagged = Pdu::new(opcode::DATA_OUT, if is_final { FINAL } else { 0 }).put_word(16, itt).put_word(20, ttt);
    tagged.put_word(36, data_sn).put_word(40, offset).with_data(data)
}

pub(crate) fn nop_out((itt, cmd_sn): (u32, u32), data: &[u8]) -> Pdu {
    let tagged = Pdu::new(opcode::NOP_OUT, FINAL).put_word(16, itt).put_word(20, RESERVED_TAG);
    tagged.put_word(24, cmd_sn).with_data(data)
}

/// A task management function for LUN 0, immediate.
pub(crate) fn task(function: u8, (itt, cmd_sn): (u32, u32), (referenced, ref_cmd_sn): (u32, u32)) -> Pdu {
    let tagged = Pdu::new(opcode::TASK, FINAL | function).put_word(16, itt).put_word(24, cmd_sn).immediate();
    tagged.put_word(20, referenced).put_word(32, ref_cmd_sn)
}

pub(crate) fn logout(reason: u8, (itt, cmd_sn): (u32, u32), cid: u16) -> Pdu {
    let tagged = Pdu::new(opcode::LOGOUT, FINAL | reason).put_word(16, itt).put_word(24, cmd_sn);
    tagged.put(20, &cid.to_be_bytes())
}

pub(crate) fn text(flags: u8, (itt, cmd_sn): (u32, u32), ttt: u32, keys: &[u8]) -> Pdu {
    let tagged = Pdu::new(opcode::TEXT, flags).put_word(16, itt).put_word(20, ttt).put_word(24, cmd_sn);
    tagged.with_data(keys)
}

/// CDBs of ten bytes. SBC-3 5.10, 5.32.
pub(crate) fn read10(lba: u32, blocks: u16) -> Vec<u8> {
    ten(0x28, lba, blocks)
}

pub(crate) fn write10(lba: u32, blocks: u16) -> Vec<u8> {
    ten(0x2a, lba, blocks)
}

fn ten(operation: u8, lba: u32, blocks: u16) -> Vec<u8> {
    [&[operation, 0][..], &lba.to_be_bytes(), &[0], &blocks.to_be_bytes(), &[0]].concat()
}

pub(crate) fn blocks_of(bytes: usize) -> u16 {
    u16::try_from(bytes / 512).unwrap()
}

pub(crate) fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

/// What a connection has to say.
#[derive(Debug)]
pub(crate) enum Heard {
    Pdu(Pdu),
    /// The target has closed the connection.
    End,
    Silence,
}

/// Which digest of a PDU is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoilt {
    Nothing,
    HeaderDigest,
    DataDigest,
}

/// One TCP connection, logged in or not.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    header_digest: bool,
    data_digest: bool,
    /// The StatSN that must come next.
    pub(crate) stat_sn: u32,
    pub(crate) exp_cmd_sn: u32,
    pub(crate) max_cmd_sn: u32,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (input, exp_cmd_sn, max_cmd_sn) = (Vec::new(), 0, 0);
        Self { stream, input, header_digest: false, data_digest: false, stat_sn: 0, exp_cmd_sn, max_cmd_sn }
    }

    /// The bytes of a PDU as this connection sends it: lengths, ExpStatSN, padding and digests put in.
    pub(crate) fn encode(&self, pdu: &Pdu, spoilt: Spoilt) -> Vec<u8> {
        let [_, length @ ..] = len_of(&pdu.data).to_be_bytes();
        let ahs_words = u8::try_from(pdu.ahs.len() / 4).unwrap();
        let head = pdu.clone().put(4, &[ahs_words]).put(5, &length).put_word(28, self.stat_sn).bhs;
        let mut bytes = [&head[..], &pdu.ahs].concat();
        if self.header_digest {
            let sum = digest(&[&bytes]);
            bytes.extend_from_slice(&spoil(sum, spoilt == Spoilt::HeaderDigest));
        }
        let mut field = pdu.data.clone();
        // Padding that is not zero counts as it was sent.
        field.resize(padded(field.len()), 0xa5);
        bytes.extend_from_slice(&field);
        if self.data_digest && !field.is_empty() {
            bytes.extend_from_slice(&spoil(digest(&[&field]), spoilt == Spoilt::DataDigest));
        }
        bytes
    }

    pub(crate) fn send(&mut self, pdu: &Pdu) {
        self.send_spoilt(pdu, Spoilt::Nothing);
    }

    pub(crate) fn send_spoilt(&mut self, pdu: &Pdu, spoilt: Spoilt) {
        let bytes = self.encode(pdu, spoilt);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Sends bytes to a target that may have closed the connection; whether it takes them.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next PDU; waits for it, but not for ever. Pings of the target are answered on the way.
    pub(crate) fn receive(&mut self) -> Pdu {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.hear(end.saturating_duration_since(Instant::now())) {
                Heard::Pdu(pdu) if pdu.opcode() == opcode::NOP_IN && pdu.itt() == RESERVED_TAG => {
                    self.answer_ping(&pdu);
                }
                Heard::Pdu(pdu) => return pdu,
                other @ (Heard::End | Heard::Silence) => panic!("a PDU was to come: {other:?}"),
            }
        }
    }

    /// RFC 7143 11.18: LUN and tag come back, and no answer is wanted.
    pub(crate) fn answer_ping(&mut self, asked: &Pdu) {
        let answer = nop_out((RESERVED_TAG, self.exp_cmd_sn), b"").immediate();
        self.send(&answer.put(20, &asked.bhs[20..24]).put(8, &asked.bhs[8..16]));
    }

    /// The next PDU, if one comes in time.
    pub(crate) fn hear(&mut self, time: Duration) -> Heard {
        let end = Instant::now() + time;
        loop {
            if let Some(pdu) = self.take_pdu() {
                self.check(&pdu);
                return Heard::Pdu(pdu);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 1 << 16];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Heard::End,
                Ok(len) => self.input.extend_from_slice(&bytes[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::End,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What is still said until the target closes the connection, which it must do soon.
    pub(crate) fn hear_to_the_end(&mut self) -> Vec<Pdu> {
        self.hear_to_the_end_within(END_PATIENCE)
    }

    pub(crate) fn hear_to_the_end_within(&mut self, time: Duration) -> Vec<Pdu> {
        let (end, mut said) = (Instant::now() + time, Vec::new());
        loop {
            match self.hear(end.saturating_duration_since(Instant::now())) {
                Heard::Pdu(pdu) => said.push(pdu),
                Heard::End => return said,
                Heard::Silence => panic!("the connection is not closed; said: {said:?}"),
            }
        }
    }

    /// Nothing comes for a moment, and the connection stays.
    pub(crate) fn hear_nothing(&mut self) {
        let heard = self.hear(Duration::from_millis(300));
        assert!(matches!(heard, Heard::Silence), "{heard:?}");
    }

    pub(crate) fn shut_down(&self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }

    fn take_pdu(&mut self) -> Option<Pdu> {
        let bhs: [u8; 48] = *self.input.first_chunk()?;
        let data_len = usize::try_from(u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]])).unwrap();
        let ahs_end = 48 + 4 * usize::from(bhs[4]);
        let data_start = ahs_end + if self.header_digest { 4 } else { 0 };
        let field_end = data_start + padded(data_len);
        let end = field_end + if self.data_digest && data_len > 0 { 4 } else { 0 };
        if self.input.len() < end {
            return None;
        }
        let bytes: Vec<u8> = self.input.drain(..end).collect();
        if self.header_digest {
            assert_eq!(digest(&[&bytes[..ahs_end]]), bytes[ahs_end..data_start], "header digest of {bhs:02x?}");
        }
        if end > field_end {
            assert_eq!(digest(&[&bytes[data_start..field_end]]), bytes[field_end..], "data digest of {bhs:02x?}");
        }
        Some(Pdu { bhs, ahs: bytes[48..ahs_end].to_vec(), data: bytes[data_start..data_start + data_len].to_vec() })
    }

    /// What must be so of every PDU of a target: RFC 7143 4.2.2.1, 4.2.2.2.
    fn check(&mut self, pdu: &Pdu) {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = (pdu.word(24), pdu.word(28), pdu.word(32));
        let has_status = match pdu.opcode() {
            opcode::DATA_IN => pdu.has(STATUS),
            opcode::NOP_IN => pdu.itt() != RESERVED_TAG,
            opcode::R2T => false,
            _ => true,
        };
        if pdu.opcode() != opcode::LOGIN_RESPONSE {
            if pdu.opcode() != opcode::DATA_IN || has_status {
                assert_eq!(stat_sn, self.stat_sn, "StatSN of {pdu:?}");
            }
            let is_behind = |before: u32, after: u32| after.wrapping_sub(before) > 1 << 31;
            assert!(!is_behind(self.exp_cmd_sn, exp_cmd_sn), "ExpCmdSN went back in {pdu:?}");
            assert!(!is_behind(self.max_cmd_sn, max_cmd_sn), "MaxCmdSN went back in {pdu:?}");
            (self.exp_cmd_sn, self.max_cmd_sn) = (exp_cmd_sn, max_cmd_sn);
        }
        if has_status {
            self.stat_sn = stat_sn.wrapping_add(1);
        }
    }
}

fn spoil([first, rest @ ..]: [u8; 4], is_spoilt: bool) -> [u8; 4] {
    let [a, b, c] = rest;
    [if is_spoilt { first ^ 1 } else { first }, a, b, c]
}

/// How to log in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) address: String,
    pub(crate) initiator: String,
    pub(crate) target: String,
    pub(crate) isid: [u8; 6],
    pub(crate) tsih: u16,
    pub(crate) cid: u16,
    pub(crate) cmd_sn: u32,
    pub(crate) keys: Vec<(String, String)>,
    /// Bytes of the text in one PDU at most.
    pub(crate) piece_bytes: usize,
}

/// What came of a login.
pub(crate) struct Admission {
    pub(crate) connection: Connection,
    pub(crate) tsih: u16,
    pub(crate) answers: Vec<(String, String)>,
}

impl Admission {
    pub(crate) fn answer(&self, key: &str) -> Option<&str> {
        let mut found = self.answers.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let value = found.next();
        assert_eq!(found.next(), None, "{key} is answered twice");
        value
    }
}

impl Login {
    /// With as much as the target allows.
    pub(crate) fn new(address: &str, initiator: &str, target: &str) -> Self {
        let names = [address, initiator, target].map(str::to_owned);
        let [address, initiator, target] = names;
        let (isid, keys) = ([0x80, 0, 0, 0, 0, 1], Vec::new());
        let login = Self { address, initiator, target, isid, tsih: 0, cid: 1, cmd_sn: 1, keys, piece_bytes: 8192 };
        let keys = [("MaxRecvDataSegmentLength", "262144"), ("MaxConnections", "8"), ("InitialR2T", "No")];
        let lengths = [("MaxBurstLength", "1048576"), ("FirstBurstLength", "262144"), ("ErrorRecoveryLevel", "0")];
        keys.into_iter().chain(lengths).fold(login, |login, (key, value)| login.with(key, value))
    }

    /// Offers a key, in place of what is offered for it.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Logs in by one operational stage.
    ///
    /// # Errors
    /// The class and detail of the status.
    pub(crate) fn enter(&self) -> Result<Admission, (u8, u8)> {
        let mut connection = Connection::open(&self.address);
        let names = [("InitiatorName", &self.initiator), ("TargetName", &self.target)];
        let names = names.into_iter().filter(|(_, name)| !name.is_empty());
        let mut offer: Vec<u8> = names.flat_map(|(key, name)| format!("{key}={name}\0").into_bytes()).collect();
        offer.extend(self.keys.iter().flat_map(|(key, value)| format!("{key}={value}\0").into_bytes()));
        let mut pieces = offer.chunks(self.piece_bytes).peekable();
        let mut answer = Vec::new();
        loop {
            let piece = pieces.next().unwrap_or_default();
            connection.send(&self.request(piece, pieces.peek().is_some()));
            let response = connection.receive();
            assert_eq!(response.opcode(), opcode::LOGIN_RESPONSE, "{response:?}");
            if response.bhs[36] != 0 {
                assert!(connection.hear_to_the_end().is_empty());
                return Err((response.bhs[36], response.bhs[37]));
            }
            assert!(pieces.peek().is_none() || response.data.is_empty(), "an answer to half of a text: {response:?}");
            answer.extend_from_slice(&response.data);
            if response.has(FINAL) {
                assert!(!response.has(CONTINUE) && pieces.peek().is_none(), "{response:?}");
                let tsih = u16::from_be_bytes([response.bhs[14], response.bhs[15]]);
                (connection.exp_cmd_sn, connection.max_cmd_sn) = (response.word(28), response.word(32));
                return Ok(Self::admission(connection, tsih, &answer));
            }
        }
    }

    fn admission(connection: Connection, tsih: u16, answer: &[u8]) -> Admission {
        let answers = pairs(answer);
        let mut admission = Admission { connection, tsih, answers };
        admission.connection.header_digest = admission.answer("HeaderDigest") == Some("CRC32C");
        admission.connection.data_digest = admission.answer("DataDigest") == Some("CRC32C");
        admission
    }

    /// A login request, which asks for the full feature phase unless its text goes on.
    pub(crate) fn request(&self, keys: &[u8], is_continued: bool) -> Pdu {
        let flags = if is_continued { CONTINUE } else { FINAL };
        let staged = Pdu::new(opcode::LOGIN, flags | 1 << 2 | 3).immediate().put(8, &self.isid).with_data(keys);
        let tagged = staged.put(14, &self.tsih.to_be_bytes()).put_word(16, 0x1061).put(20, &self.cid.to_be_bytes());
        tagged.put_word(24, self.cmd_sn)
    }
}

pub(crate) fn pairs(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    /// Key, code and qualifier, of fixed format sense data.
    pub(crate) sense: Option<(u8, u8, u8)>,
    pub(crate) data: Vec<u8>,
    /// OVERFLOW or UNDERFLOW, and by how much.
    pub(crate) residual: (u8, u32),
    /// Data-In PDUs that end a sequence: how many.
    pub(crate) sequences: usize,
    /// What was asked for, by R2Ts: offset and length of each.
    pub(crate) asked: Vec<(u32, u32)>,
}

/// A session with its connections.
pub(crate) struct Session {
    pub(crate) login: Login,
    pub(crate) connections: Vec<Connection>,
    pub(crate) cmd_sn: u32,
    itt: u32,
}

impl Session {
    /// Logs in, and hears what the unit has to tell first.
    pub(crate) fn begin(login: Login) -> Self {
        let admission = login.enter().unwrap_or_else(|status| panic!("refused: {status:02x?}"));
        let cmd_sn = login.cmd_sn;
        let login = Login { tsih: admission.tsih, ..login };
        let mut session = Self { login, connections: vec![admission.connection], cmd_sn, itt: 0 };
        while session.run(0, (SIMPLE, 0), &[0; 6], &[]).status != 0 {}
        session
    }

    /// A login for a further connection of it.
    pub(crate) fn joining(&self, cid: u16) -> Login {
        Login { cid, cmd_sn: self.cmd_sn, ..self.login.clone() }
    }

    /// Opens a further connection.
    pub(crate) fn join(&mut self, cid: u16) {
        let admission = self.joining(cid).enter().unwrap_or_else(|status| panic!("refused: {status:02x?}"));
        assert_eq!(admission.tsih, self.login.tsih);
        self.connections.push(admission.connection);
    }

    /// A new task tag, and the next CmdSN.
    pub(crate) fn next(&mut self) -> (u32, u32) {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.wrapping_add(1);
        (self.next_itt(), cmd_sn)
    }

    pub(crate) fn next_itt(&mut self) -> u32 {
        self.itt += 1;
        self.itt
    }

    /// A new task tag, and the next CmdSN without taking it: for what is immediate.
    pub(crate) fn next_immediate(&mut self) -> (u32, u32) {
        (self.next_itt(), self.cmd_sn)
    }

    /// Carries a command out; `data` is for it, and is sent as it is asked for.
    pub(crate) fn run(&mut self, at: usize, (flags, expected_bytes): (u8, u32), cdb: &[u8], data: &[u8]) -> Answer {
        let numbers = self.next();
        self.connections[at].send(&command(flags, numbers, expected_bytes, cdb));
        self.finish(at, numbers.0, data)
    }

    /// Waits for a command's end; sends what is asked for of `data`.
    pub(crate) fn finish(&mut self, at: usize, itt: u32, data: &[u8]) -> Answer {
        let connection = &mut self.connections[at];
        let (mut came, mut sequences, mut asked) = (Vec::new(), 0, Vec::new());
        loop {
            let pdu = connection.receive();
            assert_eq!(pdu.itt(), itt, "of another command: {pdu:?}");
            let ends = match pdu.opcode() {
                opcode::R2T => {
                    asked.push((pdu.word(40), pdu.word(44)));
                    send_asked(connection, &pdu, data);
                    false
                }
                opcode::DATA_IN => {
                    assert_eq!(pdu.word(40), len_of(&came), "the offset of {:02x?}", pdu.bhs);
                    came.extend_from_slice(&pdu.data);
                    sequences += usize::from(pdu.has(FINAL));
                    pdu.has(STATUS)
                }
                opcode::RESPONSE => {
                    assert_eq!(pdu.bhs[2], 0, "the response of {pdu:?}");
                    true
                }
                _ => panic!("no part of a command: {pdu:?}"),
            };
            if ends {
                let sense = pdu.data.get(2..16).filter(|_| pdu.opcode() == opcode::RESPONSE);
                let sense = sense.map(|sense| (sense[2] & 0x0f, sense[12], sense[13]));
                let residual = (pdu.bhs[1] & (OVERFLOW | UNDERFLOW), pdu.word(44));
                return Answer { status: pdu.bhs[3], sense, data: came, residual, sequences, asked };
            }
        }
    }

    pub(crate) fn read(&mut self, at: usize, lba: u32, blocks: u16) -> Vec<u8> {
        let answer = self.run(at, (READ | SIMPLE, u32::from(blocks) * 512), &read10(lba, blocks), &[]);
        assert_eq!((answer.status, answer.residual), (0, (0, 0)), "{:?}", answer.sense);
        answer.data
    }

    pub(crate) fn write(&mut self, at: usize, lba: u32, data: &[u8]) {
        let answer = self.run(at, (WRITE | SIMPLE, len_of(data)), &write10(lba, blocks_of(data.len())), data);
        assert_eq!((answer.status, answer.residual), (0, (0, 0)), "{:?}", answer.sense);
    }

    /// Sends a write, with nothing of its data; returns its tag and the R2T.
    pub(crate) fn open_write(&mut self, at: usize, lba: u32, bytes: u32) -> (u32, Pdu) {
        let (itt, cmd_sn) = self.next();
        let cdb = write10(lba, u16::try_from(bytes / 512).unwrap());
        self.connections[at].send(&command(WRITE | SIMPLE, (itt, cmd_sn), bytes, &cdb));
        let asked = self.connections[at].receive();
        assert_eq!((asked.opcode(), asked.itt(), asked.word(40)), (opcode::R2T, itt, 0), "{asked:?}");
        (itt, asked)
    }

    /// A ping that takes its turn by CmdSN; nothing else may come.
    pub(crate) fn ping(&mut self, at: usize) {
        let numbers = self.next();
        self.connections[at].send(&nop_out(numbers, b"still here"));
        let answer = self.connections[at].receive();
        assert_eq!((answer.opcode(), answer.itt()), (opcode::NOP_IN, numbers.0), "{answer:?}");
        assert_eq!(answer.data, b"still here");
    }

    /// A task management function, immediate; the response code.
    pub(crate) fn manage(&mut self, at: usize, function: u8, referenced: (u32, u32)) -> u8 {
        let numbers = self.next_immediate();
        self.connections[at].send(&task(function, numbers, referenced));
        let answer = self.connections[at].receive();
        assert_eq!((answer.opcode(), answer.itt()), (opcode::TASK_RESPONSE, numbers.0), "{answer:?}");
        answer.bhs[2]
    }
}

/// Sends what an R2T asks for, in PDUs as long as the target takes.
pub(crate) fn send_asked(connection: &mut Connection, r2t: &Pdu, data: &[u8]) {
    let (start, len) = (r2t.word(40), r2t.word(44));
    let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
    let asked = data.get(range).unwrap_or_else(|| panic!("{start}+{len} is asked for of {} bytes", data.len()));
    let pieces = asked.chunks(256 << 10);
    let last = pieces.len() - 1;
    let mut offset = start;
    for (place, piece) in pieces.enumerate() {
        let data_sn = u32::try_from(place).unwrap();
        connection.send(&data_out(place == last, (r2t.itt(), r2t.word(20)), data_sn, offset, piece));
        offset += len_of(piece);
    }
}
