//! Records of whole connections, as the kernel side would have captured them.

use agentsight_abi::{Direction, Kind, RecordHeader};

use crate::dialect::Dialect;

/// Plaintext of one TLS record at most, RFC 8446 section 5.1.
const TLS_RECORD_BYTES: usize = 16 * 1024;

/// A message of a conversation.
const MESSAGE_BYTES: usize = 2 * 1024;

/// A record outside of any ring.
pub struct Recorded {
    /// What the kernel says of it.
    pub header: RecordHeader,
    /// The bytes of one call, or of a piece of it.
    pub payload: Vec<u8>,
}

/// How the writes of a stream become records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Each event is read as it comes.
    Each,
    /// The reader is behind, so that each read fills a TLS record.
    Full,
}

/// Records of several exchanges.
#[derive(Default)]
pub struct Workload {
    /// In the order in which they were captured. The first of a connection opens it.
    pub records: Vec<Recorded>,
    /// How many calls they are.
    pub exchanges: usize,
    /// The JSON bodies of requests and whole responses.
    pub documents: Vec<Vec<u8>>,
    /// Bytes of all payloads.
    pub bytes: usize,
    /// Its responses say what they say, and not the counts that those made here do.
    pub is_foreign: bool,
    /// By connection, what each direction has had so far.
    offsets: Vec<[u64; 2]>,
}

impl Workload {
    /// `count` exchanges with whole bodies of about so many bytes.
    pub fn plain(dialect: Dialect, request_bytes: usize, response_bytes: usize, count: usize) -> Self {
        let mut workload = Self::default();
        let mut words = Words(1);
        for _ in 0..count {
            let request = dialect.request(&words.texts(request_bytes), false);
            let response = dialect.response(&words.text(response_bytes));
            workload.exchange(0, &request, &[response], Reads::Full);
        }
        workload
    }

    /// `count` exchanges whose responses are streams of `events` events.
    pub fn streamed(dialect: Dialect, events: usize, count: usize, reads: Reads) -> Self {
        let mut workload = Self::default();
        let mut words = Words(2);
        for _ in 0..count {
            let request = dialect.request(&words.texts(1024), true);
            let writes = dialect.streamed(&(0..events).map(|_| words.word()).collect::<Vec<_>>());
            workload.exchange(0, &request, &writes, reads);
        }
        workload
    }

    /// What a gateway may see: requests from 1 KiB to 1 MiB with a long tail, seven in ten streamed,
    /// streams of 20 to 2,000 events, all dialects, on eight connections. The same for the same seed.
    pub fn mix(seed: u64, count: usize) -> Self {
        let mut workload = Self::default();
        let mut words = Words(seed);
        for number in 0..count {
            let dialect = Dialect::ALL[words.below(Dialect::ALL.len())];
            let tail = words.share().powi(4);
            let request_bytes = (1024.0 * 1024_f64.powf(tail)) as usize;
            let texts = words.texts(request_bytes);
            let connection = number % 8;
            if words.below(10) < 7 {
                let events = (20.0 * 100_f64.powf(words.share().powi(2))) as usize;
                let writes = dialect.streamed(&(0..events).map(|_| words.word()).collect::<Vec<_>>());
                let reads = if words.below(2) == 0 { Reads::Each } else { Reads::Full };
                workload.exchange(connection, &dialect.request(&texts, true), &writes, reads);
            } else {
                let answer_bytes = 200 + words.below(8 * 1024);
                let response = dialect.response(&words.text(answer_bytes));
                workload.exchange(connection, &dialect.request(&texts, false), &[response], Reads::Full);
            }
        }
        workload
    }

    /// Exchanges of others, request and response.
    pub fn foreign(exchanges: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut workload = Self { is_foreign: true, ..Self::default() };
        for (request, response) in exchanges {
            workload.exchange(0, &request, &[response], Reads::Full);
        }
        workload
    }

    /// Streams of `count` connections that have had `events` events and go on.
    pub fn under_way(dialect: Dialect, events: usize, count: usize) -> Self {
        let mut workload = Self::default();
        let mut words = Words(5);
        let request = dialect.request(&words.texts(1024), true);
        let mut writes = dialect.streamed(&(0..events + 1).map(|_| words.word()).collect::<Vec<_>>());
        writes.truncate(1 + events);
        for connection in 0..count {
            workload.exchange(connection, &request, &writes, Reads::Each);
        }
        workload.exchanges = 0;
        workload
    }

    /// How many bytes a direction of a connection has in all.
    pub fn transferred(&self, header: &RecordHeader) -> u64 {
        self.offsets[header.conn as usize - 1][usize::from(header.direction)]
    }

    fn exchange(&mut self, connection: usize, request: &[u8], response: &[Vec<u8>], reads: Reads) {
        while self.offsets.len() <= connection {
            self.offsets.push([0; 2]);
            let mut info = vec![0; 32];
            info[..6].copy_from_slice(b"python");
            self.push(self.offsets.len() - 1, Direction::Write, Kind::Open, info);
        }
        let joined;
        let writes = match reads {
            Reads::Each => response,
            Reads::Full => {
                joined = [response.concat()];
                &joined[..]
            }
        };
        let whole = response.first().filter(|_| response.len() == 1 && !self.is_foreign);
        self.documents.extend([Some(request), whole.map(Vec::as_slice)].into_iter().flatten().map(body));
        for piece in request.chunks(TLS_RECORD_BYTES) {
            self.push(connection, Direction::Write, Kind::Data, piece.to_vec());
        }
        for piece in writes.iter().flat_map(|write| write.chunks(TLS_RECORD_BYTES)) {
            self.push(connection, Direction::Read, Kind::Data, piece.to_vec());
        }
        self.exchanges += 1;
    }

    fn push(&mut self, connection: usize, direction: Direction, kind: Kind, payload: Vec<u8>) {
        let offset = &mut self.offsets[connection][direction as usize];
        let header = RecordHeader {
            conn: connection as u64 + 1,
            ktime_ns: (self.records.len() as u64 + 1) * 1_000_000,
            offset: *offset,
            tgid: 4711,
            tid: 4712,
            len: payload.len() as u32,
            kind: kind as u8,
            direction: direction as u8,
            ..RecordHeader::default()
        };
        if kind == Kind::Data {
            *offset += payload.len() as u64;
            self.bytes += payload.len();
        }
        self.records.push(Recorded { header, payload });
    }
}

/// What follows the head of a message.
fn body(message: &[u8]) -> Vec<u8> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    message[end..].to_vec()
}

/// Text as it is inside JSON strings, from a seed (SplitMix64).
pub struct Words(pub u64);

impl Words {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }

    /// A number from 0 up to 1.
    fn share(&mut self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    /// A word with the space before it; now and then with what has to be escaped or isn't ASCII.
    pub fn word(&mut self) -> String {
        const ODD: [&str; 6] = [r"\n", r"\n\n", r#" \"so\""#, " é", " 中文", r" \u2014"];
        if self.below(20) == 0 {
            return ODD[self.below(ODD.len())].to_owned();
        }
        let letters = 1 + self.below(9);
        std::iter::once(' ').chain((0..letters).map(|_| char::from(b'a' + self.below(26) as u8))).collect()
    }

    /// About so many bytes of words.
    pub fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.push_str(&self.word());
        }
        text
    }

    /// About so many bytes in messages.
    pub fn texts(&mut self, bytes: usize) -> Vec<String> {
        let whole = bytes / MESSAGE_BYTES;
        let mut texts: Vec<_> = (0..whole).map(|_| self.text(MESSAGE_BYTES)).collect();
        texts.push(self.text(bytes % MESSAGE_BYTES));
        texts
    }
}
