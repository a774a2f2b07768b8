//! One connection: its two directions, and what is done with its records.

use std::sync::Arc;

use agentsight_abi::{
    Direction, FirstBytes, RecordHeader,
    first_bytes::{LOOKED_AT, first_bytes},
    flags,
};

use super::{
    Outlet, Shared,
    pending::{Context, Exchanges, Requests, Responses},
};
use crate::{
    exchange::{Process, Role},
    genai::Ended,
    metrics::{Cause, Total},
    wire::http1::Decoder,
};

/// Where a direction stands.
#[derive(Clone, Copy, Default)]
struct Way {
    /// Offset of the next byte.
    next: u64,
    /// The first record of it fixed `next`.
    begun: bool,
    /// When and by which thread the message under way was begun.
    message_ns: u64,
    thread_id: u32,
}

/// What a connection turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Not known yet.
    Unknown,
    /// HTTP/1, with the observed process in this role.
    Http1(Role),
    /// Of no use.
    Ignored,
}

/// A connection of an observed process.
pub(super) struct Conn {
    pub id: u64,
    pub tgid: u32,
    pub last_ns: u64,
    pub process: Option<Arc<Process>>,
    midway: bool,
    protocol: Protocol,
    /// By [`Direction`].
    ways: [Way; 2],
    requests: Decoder,
    responses: Decoder,
    exchanges: Exchanges,
}

/// Which of the two decoders.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Messages {
    Requests,
    Responses,
}

fn messages(role: Role, direction: Direction) -> Messages {
    match (role, direction) {
        (Role::Client, Direction::Write) | (Role::Server, Direction::Read) => Messages::Requests,
        (Role::Client, Direction::Read) | (Role::Server, Direction::Write) => Messages::Responses,
    }
}

impl Conn {
    pub fn new(header: &RecordHeader, midway: bool) -> Self {
        let mut conn = Self {
            id: header.conn,
            tgid: header.tgid,
            last_ns: header.ktime_ns,
            process: None,
            midway,
            protocol: Protocol::Unknown,
            ways: [Way::default(); 2],
            requests: Decoder::requests(),
            responses: Decoder::responses(),
            exchanges: Exchanges::default(),
        };
        if midway {
            conn.resynchronise();
        }
        // Of a connection that was seen from its start, whatever is missing before the first record
        // was lost.
        conn.ways.iter_mut().for_each(|way| way.begun = !midway);
        conn
    }

    pub fn has_pending(&self) -> bool {
        !self.exchanges.is_empty()
    }

    fn resynchronise(&mut self) {
        self.requests = Decoder::requests().midway();
        self.responses = Decoder::responses().midway();
    }

    pub fn data<O: Outlet>(
        &mut self,
        header: &RecordHeader,
        direction: Direction,
        payload: &[u8],
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        self.last_ns = self.last_ns.max(header.ktime_ns);
        let way = &mut self.ways[direction as usize];
        if !std::mem::replace(&mut way.begun, true) {
            way.next = header.offset;
        }
        let missing = header.offset.saturating_sub(way.next);
        // A record that repeats bytes can only come from a damaged recording.
        let repeated = usize::try_from(way.next.saturating_sub(header.offset)).unwrap_or(usize::MAX);
        let payload = payload.get(repeated..).unwrap_or_default();
        let end = header.offset.saturating_add(u64::from(header.len));
        way.next = way.next.max(end.saturating_add(header.lost));
        if missing + header.lost > 0 {
            shared.metrics.lost(Cause::BytesMissing, missing + header.lost);
        }
        if missing > 0 && self.protocol == Protocol::Unknown && !self.midway {
            // What tells the protocol was lost, so that any later head has to do.
            self.midway = true;
            self.resynchronise();
        }
        let Some(role) = self.role(direction, payload, shared, outlet) else { return };
        if missing > 0 {
            self.gap(role, direction, missing, header, shared, outlet);
        }
        self.feed(role, direction, payload, header, shared, outlet);
        if header.lost > 0 {
            self.gap(role, direction, header.lost, header, shared, outlet);
        }
        if self.exchanges.switched {
            self.ignore(outlet);
        }
    }

    /// The role of the observed process, read off the direction of the first message.
    fn role<O: Outlet>(
        &mut self,
        direction: Direction,
        payload: &[u8],
        shared: &Shared,
        outlet: &mut O,
    ) -> Option<Role> {
        match self.protocol {
            Protocol::Http1(role) => return Some(role),
            Protocol::Ignored => return None,
            Protocol::Unknown => {}
        }
        let mut bytes = [0; LOOKED_AT];
        let len = payload.len().min(LOOKED_AT);
        bytes[..len].copy_from_slice(&payload[..len]);
        let role = match (first_bytes(&bytes, len), direction) {
            (FirstBytes::Request, Direction::Write) | (FirstBytes::Response, Direction::Read) => Role::Client,
            (FirstBytes::Request, Direction::Read) | (FirstBytes::Response, Direction::Write) => Role::Server,
            (FirstBytes::Preface | FirstBytes::Frame, _) => {
                shared.metrics.lost(Cause::ConnectionHttp2, 1);
                self.ignore(outlet);
                return None;
            }
            (FirstBytes::Other, _) => {
                if !self.midway && len > 0 {
                    shared.metrics.add(Total::ConnectionsUnrecognised, 1);
                    self.ignore(outlet);
                }
                return None;
            }
        };
        self.protocol = Protocol::Http1(role);
        Some(role)
    }

    fn ignore<O: Outlet>(&mut self, outlet: &mut O) {
        self.protocol = Protocol::Ignored;
        self.requests.switch_protocols();
        self.responses.switch_protocols();
        outlet.ignore(self.id);
    }

    fn feed<O: Outlet>(
        &mut self,
        role: Role,
        direction: Direction,
        payload: &[u8],
        header: &RecordHeader,
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        let which = messages(role, direction);
        let decoder = if which == Messages::Requests { &self.requests } else { &self.responses };
        let way = &mut self.ways[direction as usize];
        if decoder.is_idle() && !payload.is_empty() {
            way.message_ns = header.ktime_ns;
            way.thread_id = header.tid;
        }
        self.with_context(role, direction, header.ktime_ns, Ended::Cut, shared, outlet, |conn, exchanges, context| {
            match which {
                Messages::Requests => conn.requests.feed(payload, &mut Requests { exchanges, context }),
                Messages::Responses => conn.responses.feed(payload, &mut Responses { exchanges, context }),
            }
        });
    }

    fn gap<O: Outlet>(
        &mut self,
        role: Role,
        direction: Direction,
        lost: u64,
        header: &RecordHeader,
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        let which = messages(role, direction);
        self.with_context(role, direction, header.ktime_ns, Ended::Cut, shared, outlet, |conn, exchanges, context| {
            match which {
                Messages::Requests => {
                    if !conn.requests.gap(lost, &mut Requests { exchanges, context }) {
                        exchanges.requests_unsure(context);
                    }
                }
                Messages::Responses => {
                    if !conn.responses.gap(lost, &mut Responses { exchanges, context }) {
                        exchanges.responses_unsure();
                    }
                }
            }
        });
    }

    /// The kernel saw the connection's end, and how many bytes each direction had in all.
    pub fn closed_by_record<O: Outlet>(&mut self, header: &RecordHeader, shared: &mut Shared, outlet: &mut O) {
        self.last_ns = self.last_ns.max(header.ktime_ns);
        let Protocol::Http1(role) = self.protocol else { return };
        for (direction, total) in [(Direction::Read, header.offset), (Direction::Write, header.lost)] {
            let way = self.ways[direction as usize];
            let missing = total.saturating_sub(way.next);
            if way.begun && missing > 0 {
                shared.metrics.lost(Cause::BytesMissing, missing);
                self.gap(role, direction, missing, header, shared, outlet);
            }
        }
        // Whoever ends a connection first, it is the client that cancels.
        let peer_closed = header.flags & flags::PEER_CLOSED != 0;
        let by_client = (role == Role::Client) != peer_closed;
        let cut = if by_client { Ended::Cancelled } else { Ended::Cut };
        self.close(role, Ended::NoResponse, cut, shared, outlet);
    }

    /// The process ended without ending its connections.
    pub fn process_ended<O: Outlet>(&mut self, now_ns: u64, shared: &mut Shared, outlet: &mut O) {
        self.last_ns = now_ns;
        if let Protocol::Http1(role) = self.protocol {
            self.close(role, Ended::NoResponse, Ended::Cut, shared, outlet);
        }
    }

    /// Nothing came for too long.
    pub fn given_up_idle<O: Outlet>(&mut self, shared: &mut Shared, outlet: &mut O) {
        if let Protocol::Http1(role) = self.protocol {
            self.close(role, Ended::NoResponse, Ended::Cut, shared, outlet);
            self.exchanges = Exchanges::default();
            self.resynchronise();
        }
    }

    /// The engine stops following it.
    pub fn given_up<O: Outlet>(&mut self, shared: &mut Shared, outlet: &mut O) {
        if let Protocol::Http1(role) = self.protocol {
            self.close(role, Ended::Lost, Ended::Lost, shared, outlet);
        }
    }

    fn close<O: Outlet>(
        &mut self,
        role: Role,
        unanswered: Ended,
        answered: Ended,
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        let now_ns = self.last_ns;
        self.with_context(role, Direction::Read, now_ns, answered, shared, outlet, |conn, exchanges, context| {
            conn.requests.close(&mut Requests { exchanges, context });
            conn.responses.close(&mut Responses { exchanges, context });
            exchanges.close(unanswered, answered, context);
        });
    }

    /// Lends everything but the exchanges to `act` through a context, and the exchanges beside it.
    #[expect(clippy::too_many_arguments, reason = "the parts of a context, which has no other maker")]
    fn with_context<O: Outlet>(
        &mut self,
        role: Role,
        direction: Direction,
        now_ns: u64,
        cut: Ended,
        shared: &mut Shared,
        outlet: &mut O,
        act: impl FnOnce(&mut Self, &mut Exchanges, &mut Context<'_, O>),
    ) {
        let mut exchanges = std::mem::take(&mut self.exchanges);
        let process = Arc::clone(self.process.get_or_insert_default());
        let way = self.ways[direction as usize];
        let mut context = Context {
            shared,
            outlet,
            conn: self.id,
            role,
            process: &process,
            begun_ns: way.message_ns,
            thread_id: way.thread_id,
            now_ns,
            cut,
        };
        act(self, &mut exchanges, &mut context);
        self.ways[direction as usize].message_ns = context.begun_ns;
        self.exchanges = exchanges;
    }
}
