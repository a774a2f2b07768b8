//! One connection: its two directions, and what is done with its records.

use std::sync::Arc;

use agentsight_abi::{
    Direction, FirstBytes, RecordHeader,
    first_bytes::{LOOKED_AT, first_bytes},
    flags,
};

use super::{
    Outlet, Shared,
    context::Context,
    ordered::{Http1, Successor},
    socket::Socket,
    streams::Http2,
};
use crate::{
    exchange::{Process, Role},
    genai::Ended,
    metrics::{Cause, Total},
    network::Network,
    wire::http2,
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
enum Protocol {
    /// Not known yet.
    Unknown,
    /// HTTP/1.
    Http1(Box<Http1>),
    /// HTTP/2.
    Http2(Box<Http2>),
    /// WebSocket, after HTTP/1.
    WebSocket(Box<Socket>),
    /// Of no use.
    Ignored,
}

/// A connection of an observed process.
pub(super) struct Conn {
    pub id: u64,
    pub tgid: u32,
    pub last_ns: u64,
    pub process: Option<Arc<Process>>,
    pub network: Arc<Network>,
    midway: bool,
    /// Of the observed process; known when the protocol is.
    role: Role,
    protocol: Protocol,
    /// By [`Direction`].
    ways: [Way; 2],
}

/// Whether what goes in this direction are requests.
fn carries_requests(role: Role, direction: Direction) -> bool {
    (role == Role::Client) == (direction == Direction::Write)
}

impl Conn {
    pub fn new(header: &RecordHeader, midway: bool) -> Self {
        // Of a connection that was seen from its start, whatever is missing before the first record
        // was lost.
        let way = Way { begun: !midway, ..Way::default() };
        Self {
            id: header.conn,
            tgid: header.tgid,
            last_ns: header.ktime_ns,
            process: None,
            network: Arc::default(),
            midway,
            role: Role::Client,
            protocol: Protocol::Unknown,
            ways: [way; 2],
        }
    }

    pub fn has_pending(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(http) => http.has_pending(),
            Protocol::Http2(http) => http.has_pending(),
            Protocol::WebSocket(socket) => socket.has_pending(),
            Protocol::Unknown | Protocol::Ignored => false,
        }
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
        let goes_on = way.begun && header.offset == way.next && header.lost == 0;
        if goes_on && !matches!(self.protocol, Protocol::Unknown) && payload.len() == header.len as usize {
            // Nothing is missing, as nearly always.
            way.next = way.next.saturating_add(u64::from(header.len));
            self.feed(direction, payload, header, shared, outlet);
        } else {
            self.data_with_care(header, direction, payload, shared, outlet);
        }
        let is_over = match &self.protocol {
            Protocol::Http1(http) => http.is_over(),
            Protocol::WebSocket(socket) => socket.is_over(),
            Protocol::Unknown | Protocol::Http2(_) | Protocol::Ignored => false,
        };
        if is_over {
            self.ignore(outlet);
        }
    }

    /// Data that may be the first of its direction, or of which something is missing.
    #[inline(never)]
    fn data_with_care<O: Outlet>(
        &mut self,
        header: &RecordHeader,
        direction: Direction,
        payload: &[u8],
        shared: &mut Shared,
        outlet: &mut O,
    ) {
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
        if matches!(self.protocol, Protocol::Unknown) {
            // When what tells the protocol was lost, any later head has to do.
            self.midway |= missing > 0;
            self.recognise(direction, payload, shared, outlet);
        }
        if missing > 0 {
            self.gap(direction, missing, header, shared, outlet);
        }
        self.feed(direction, payload, header, shared, outlet);
        if header.lost > 0 {
            self.gap(direction, header.lost, header, shared, outlet);
        }
    }

    /// Reads protocol and role off the first bytes and their direction.
    fn recognise<O: Outlet>(&mut self, direction: Direction, payload: &[u8], shared: &Shared, outlet: &mut O) {
        let mut bytes = [0; LOOKED_AT];
        let len = payload.len().min(LOOKED_AT);
        bytes[..len].copy_from_slice(&payload[..len]);
        let seen = first_bytes(&bytes, len);
        // Who writes requests is the client; who reads them, or writes responses, the server.
        let are_requests = match seen {
            FirstBytes::Request | FirstBytes::Preface => Some(true),
            FirstBytes::Response => Some(false),
            // At its start the client's direction has the preface before any frame.
            FirstBytes::Frame if !self.midway => Some(false),
            FirstBytes::Frame => http2::is_request_direction(payload),
            FirstBytes::Other => None,
        };
        let Some(are_requests) = are_requests else {
            if !self.midway && len > 0 {
                shared.metrics.add(Total::ConnectionsUnrecognised, 1);
                self.ignore(outlet);
            }
            return;
        };
        let writes_requests = are_requests == (direction == Direction::Write);
        self.role = if writes_requests { Role::Client } else { Role::Server };
        self.protocol = match seen {
            FirstBytes::Preface | FirstBytes::Frame => {
                // A preface begins a connection, whatever the kernel side saw of it.
                let midway = self.midway && seen == FirstBytes::Frame;
                Protocol::Http2(Box::new(Http2::new(midway)))
            }
            _ => Protocol::Http1(Box::new(Http1::new(self.midway))),
        };
    }

    fn ignore<O: Outlet>(&mut self, outlet: &mut O) {
        self.protocol = Protocol::Ignored;
        outlet.ignore(self.id);
    }

    fn feed<O: Outlet>(
        &mut self,
        direction: Direction,
        payload: &[u8],
        header: &RecordHeader,
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        let of_requests = carries_requests(self.role, direction);
        let idle = match &self.protocol {
            Protocol::Http1(http) => http.is_idle(of_requests),
            Protocol::Http2(http) => http.is_idle(of_requests),
            Protocol::WebSocket(socket) => socket.is_idle(of_requests),
            Protocol::Unknown | Protocol::Ignored => return,
        };
        let way = &mut self.ways[direction as usize];
        if idle && !payload.is_empty() {
            way.message_ns = header.ktime_ns;
            way.thread_id = header.tid;
        }
        let when = (direction, header.ktime_ns);
        self.with_context(when, Ended::Cut, shared, outlet, |protocol, context| match protocol {
            Protocol::Http1(http) => http.feed(of_requests, payload, context),
            Protocol::Http2(http) => http.feed(of_requests, payload, context),
            Protocol::WebSocket(socket) => socket.feed(of_requests, payload, context),
            Protocol::Unknown | Protocol::Ignored => {}
        });
        if let Protocol::Http1(http) = &mut self.protocol
            && let Some(successor) = http.take_successor()
        {
            self.protocol = match successor {
                Successor::WebSocket(socket) => Protocol::WebSocket(socket),
                Successor::Http2(http) => Protocol::Http2(http),
            };
        }
    }

    fn gap<O: Outlet>(
        &mut self,
        direction: Direction,
        lost: u64,
        header: &RecordHeader,
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        let of_requests = carries_requests(self.role, direction);
        let when = (direction, header.ktime_ns);
        self.with_context(when, Ended::Cut, shared, outlet, |protocol, context| match protocol {
            Protocol::Http1(http) => http.gap(of_requests, lost, context),
            Protocol::Http2(http) => http.gap(of_requests, lost, context),
            Protocol::WebSocket(socket) => socket.gap(of_requests, lost, context),
            Protocol::Unknown | Protocol::Ignored => {}
        });
    }

    /// The kernel saw the connection's end, and how many bytes each direction had in all.
    pub fn closed_by_record<O: Outlet>(&mut self, header: &RecordHeader, shared: &mut Shared, outlet: &mut O) {
        self.last_ns = self.last_ns.max(header.ktime_ns);
        for (direction, total) in [(Direction::Read, header.offset), (Direction::Write, header.lost)] {
            let way = self.ways[direction as usize];
            let missing = total.saturating_sub(way.next);
            // Of a connection that is ignored nothing was to come, so nothing is missing.
            if way.begun && missing > 0 && !matches!(self.protocol, Protocol::Ignored | Protocol::Unknown) {
                shared.metrics.lost(Cause::BytesMissing, missing);
                self.gap(direction, missing, header, shared, outlet);
            }
        }
        if header.flags & flags::SPOILT != 0 {
            return self.given_up(shared, outlet);
        }
        // Whoever ends a connection first, it is the client that cancels.
        let peer_closed = header.flags & flags::PEER_CLOSED != 0;
        let by_client = (self.role == Role::Client) != peer_closed;
        let cut = if by_client { Ended::Cancelled } else { Ended::Cut };
        self.close(Ended::NoResponse, cut, shared, outlet);
    }

    /// The process ended without ending its connections.
    pub fn process_ended<O: Outlet>(
        &mut self,
        now_ns: u64,
        may_lack_records: bool,
        shared: &mut Shared,
        outlet: &mut O,
    ) {
        self.last_ns = now_ns;
        // A response that was lost on its way here is not one that never came.
        let (unanswered, answered) =
            if may_lack_records { (Ended::Lost, Ended::Lost) } else { (Ended::NoResponse, Ended::Cut) };
        self.close(unanswered, answered, shared, outlet);
    }

    /// Nothing came for too long. What comes next begins somewhere.
    pub fn given_up_idle<O: Outlet>(&mut self, shared: &mut Shared, outlet: &mut O) {
        self.close(Ended::NoResponse, Ended::Cut, shared, outlet);
        match &mut self.protocol {
            Protocol::Http1(http) => **http = Http1::new(true),
            Protocol::Http2(http) => **http = Http2::new(true),
            // Its frames are known still.
            Protocol::WebSocket(_) => {}
            Protocol::Unknown | Protocol::Ignored => {}
        }
    }

    /// The engine stops following it.
    pub fn given_up<O: Outlet>(&mut self, shared: &mut Shared, outlet: &mut O) {
        self.close(Ended::Lost, Ended::Lost, shared, outlet);
    }

    fn close<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, shared: &mut Shared, outlet: &mut O) {
        let when = (Direction::Read, self.last_ns);
        self.with_context(when, answered, shared, outlet, |protocol, context| match protocol {
            Protocol::Http1(http) => http.close(unanswered, answered, context),
            Protocol::Http2(http) => http.close(unanswered, answered, context),
            Protocol::WebSocket(socket) => socket.close(unanswered, answered, context),
            Protocol::Unknown | Protocol::Ignored => {}
        });
    }

    /// Lends the protocol to `act` with a context for bytes of this direction and time.
    fn with_context<O: Outlet>(
        &mut self,
        (direction, now_ns): (Direction, u64),
        cut: Ended,
        shared: &mut Shared,
        outlet: &mut O,
        act: impl FnOnce(&mut Protocol, &mut Context<'_, O>),
    ) {
        let way = &mut self.ways[direction as usize];
        let mut context = Context {
            shared,
            outlet,
            conn: self.id,
            role: self.role,
            process: self.process.get_or_insert_default(),
            network: &self.network,
            begun_ns: way.message_ns,
            thread_id: way.thread_id,
            now_ns,
            cut,
        };
        act(&mut self.protocol, &mut context);
        way.message_ns = context.begun_ns;
    }
}
