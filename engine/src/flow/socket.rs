//! WebSocket: one exchange for each response, from the event that asks for it to the one that ends it.
//!
//! ```text
//! client ─► response.create ─────────► turn ◄─ response.created, deltas, response.completed ◄─ server
//!           session.update ─► settings ─┘  (or begun by response.created, when the server decides)
//! ```

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hasher as _},
};

use super::{Outlet, context::Context, pending::Pending};
use crate::{
    genai::{Ended, SocketEvent, Upgrade},
    limits::{SOCKET_SETTINGS_BYTES_MAX, SOCKET_STRANGE_MAX, SOCKET_TURNS_MAX},
    metrics::{Cause, Total},
    wire::websocket::{Decoder, Extensions, Kind, Sink},
};

/// A connection that has become a WebSocket.
pub(super) struct Socket {
    client: Decoder,
    server: Decoder,
    turns: Turns,
    /// Bytes of it that are counted as being in reassembly.
    counted_bytes: usize,
    over: bool,
}

/// All responses under way on one connection, and what is set for them.
struct Turns {
    upgrade: Box<Upgrade>,
    pending: VecDeque<Turn>,
    sequence: u64,
    settings: Settings,
    /// A message of the client was lost: it may have asked for a response.
    requests_unsure: bool,
    /// A message of the server was lost: it may have ended a response.
    responses_unsure: bool,
    /// Messages in a row that are no events.
    strange: u32,
}

/// Events whose effect lasts, as they were sent.
#[derive(Default)]
struct Settings {
    /// The session, as the server last told it.
    told: Vec<u8>,
    /// What the client asked to be changed since then.
    asked: Vec<u8>,
    /// What the client said since the last response was asked for, as the beginning of a document.
    items: Vec<u8>,
}

/// One response.
struct Turn {
    pending: Pending,
    /// The id that the client gave its event, as a hash.
    asked_as: Option<u64>,
    /// The response's id, once the server has named it, as a hash.
    id: Option<u64>,
    /// An error that doesn't say what made it, and when it came: it is this response's if nothing else
    /// comes of it.
    refusal: Option<(Box<[u8]>, u64)>,
}

/// Ids are compared and never shown, so that their hashes do.
fn hash(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id);
    hasher.finish()
}

impl Socket {
    /// What `upgrade` became with `extensions`; `sequence` exchanges came before on the connection.
    pub fn new(upgrade: Box<Upgrade>, extensions: &Extensions, sequence: u64) -> Self {
        let turns = Turns {
            upgrade,
            pending: VecDeque::new(),
            sequence,
            settings: Settings::default(),
            requests_unsure: false,
            responses_unsure: false,
            strange: 0,
        };
        Self {
            client: Decoder::client(extensions),
            server: Decoder::server(extensions),
            turns,
            counted_bytes: 0,
            over: false,
        }
    }

    /// Takes bytes of the client's direction, or of the other one.
    pub fn feed<O: Outlet>(&mut self, of_client: bool, bytes: &[u8], context: &mut Context<'_, O>) {
        let turns = &mut self.turns;
        let fed = if of_client {
            self.client.feed(bytes, &mut Client { turns, context })
        } else {
            self.server.feed(bytes, &mut Server { turns, context })
        };
        let held = self.client.held_bytes() + self.server.held_bytes() + self.turns.settings.held_bytes();
        let fits = context.shared.pools.recount(&mut self.counted_bytes, held);
        if fed.is_err() || !fits {
            self.give_up(context);
        } else if self.turns.strange >= SOCKET_STRANGE_MAX {
            context.shared.metrics.add(Total::ConnectionsUnrecognised, 1);
            self.end(context);
        }
    }

    /// `lost` bytes of a direction are missing.
    pub fn gap<O: Outlet>(&mut self, of_client: bool, lost: u64, context: &mut Context<'_, O>) {
        let turns = &mut self.turns;
        let gap = if of_client {
            self.client.gap(lost, &mut Client { turns, context })
        } else {
            self.server.gap(lost, &mut Server { turns, context })
        };
        if gap.is_err() {
            self.give_up(context);
        }
    }

    /// Nothing more can be read.
    fn give_up<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        if !self.over {
            context.shared.metrics.lost(Cause::SocketGivenUp, 1);
            self.end(context);
        }
    }

    fn end<O: Outlet>(&mut self, context: &mut Context<'_, O>) {
        self.over = true;
        self.turns.finish_all(Ended::Lost, Ended::Lost, context);
        context.shared.pools.recount(&mut self.counted_bytes, 0);
    }

    /// Nothing more comes: `unanswered` is said of responses that never began, `answered` of others.
    pub fn close<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        self.turns.finish_all(unanswered, answered, context);
        context.shared.pools.recount(&mut self.counted_bytes, 0);
    }

    /// No message is under way in this direction.
    pub fn is_idle(&self, of_client: bool) -> bool {
        if of_client { self.client.is_idle() } else { self.server.is_idle() }
    }

    /// Responses are under way.
    pub fn has_pending(&self) -> bool {
        !self.turns.pending.is_empty()
    }

    /// Nothing more of this connection can be read.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

/// Receives what the client says.
struct Client<'a, 'c, O> {
    turns: &'a mut Turns,
    context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Sink for Client<'_, '_, O> {
    fn message(&mut self, kind: Kind, payload: &[u8]) {
        let Some(event) = self.turns.event(kind, payload) else { return };
        match event.kind {
            b"response.create" => self.turns.ask(&event, payload, self.context),
            b"session.update" => self.turns.settings.keep(payload, |settings| &mut settings.asked, self.context),
            b"conversation.item.create" if self.context.shared.settings.call.capture_content => {
                self.turns.settings.add_item(payload);
            }
            _ => {}
        }
        // What follows in the same bytes is another message.
        self.context.begun_ns = self.context.now_ns;
    }

    fn lost(&mut self, _bytes: u64) {
        self.context.shared.metrics.lost(Cause::EventLost, 1);
        self.turns.requests_unsure = true;
    }

    fn close(&mut self, _code: Option<u16>) {
        self.turns.finish_all(Ended::Cancelled, Ended::Cancelled, self.context);
    }
}

/// Receives what the server says.
struct Server<'a, 'c, O> {
    turns: &'a mut Turns,
    context: &'a mut Context<'c, O>,
}

impl<O: Outlet> Sink for Server<'_, '_, O> {
    fn message(&mut self, kind: Kind, payload: &[u8]) {
        let Some(event) = self.turns.event(kind, payload) else { return };
        match event.kind {
            b"session.created" | b"session.updated" => {
                self.turns.settings.keep(payload, |settings| &mut settings.told, self.context);
                self.turns.settings.asked.clear();
            }
            b"error" => self.turns.refuse(&event, payload, self.context),
            kind if kind.starts_with(b"response.") => self.turns.answer(&event, payload, self.context),
            _ => {}
        }
        self.context.begun_ns = self.context.now_ns;
    }

    fn lost(&mut self, bytes: u64) {
        self.context.shared.metrics.lost(Cause::EventLost, 1);
        self.turns.responses_unsure = true;
        // Of several, nobody knows whose it was.
        let bytes = if self.turns.pending.len() == 1 { bytes } else { 0 };
        self.turns.pending.iter_mut().for_each(|turn| turn.pending.lose(bytes));
    }

    fn close(&mut self, _code: Option<u16>) {
        self.turns.finish_all(Ended::NoResponse, Ended::Cut, self.context);
    }
}

impl Turns {
    fn event<'d>(&mut self, kind: Kind, payload: &'d [u8]) -> Option<SocketEvent<'d>> {
        let event = if kind == Kind::Text { SocketEvent::of(payload) } else { None };
        self.strange = if event.is_some() { 0 } else { self.strange.saturating_add(1) };
        event
    }

    /// The client asks for a response.
    fn ask<O: Outlet>(&mut self, event: &SocketEvent<'_>, payload: &[u8], context: &mut Context<'_, O>) {
        let Some(turn) = self.begin(context) else { return };
        turn.pending.ask(payload, context.shared);
        turn.pending.request_end(true, context.now_ns, context.shared);
        turn.asked_as = event.id.map(hash);
    }

    /// A response with the settings of its session.
    fn begin<O: Outlet>(&mut self, context: &mut Context<'_, O>) -> Option<&mut Turn> {
        if self.pending.len() >= SOCKET_TURNS_MAX
            && let Some(oldest) = self.pending.pop_front()
        {
            context.shared.metrics.lost(Cause::PipelineFull, 1);
            oldest.finish(Ended::Lost, context);
        }
        let mut pending = Pending::of_socket(&self.upgrade, self.sequence, context);
        self.sequence += 1;
        self.settings.tell(&mut pending, context);
        self.pending.push_back(Turn { pending, asked_as: None, id: None, refusal: None });
        self.pending.back_mut()
    }

    /// An event of a response.
    fn answer<O: Outlet>(&mut self, event: &SocketEvent<'_>, payload: &[u8], context: &mut Context<'_, O>) {
        let id = event.response.map(hash);
        let known = |turn: &Turn| id.is_some() && turn.id == id;
        let at = match self.pending.iter().position(known) {
            Some(at) => Some(at),
            None if event.kind == b"response.created" => self.create(context),
            // What began it was lost, or it has no id in its events.
            None if self.upgrade.is_in_turn() => {
                self.pending.front().filter(|turn| id.is_none() || turn.id.is_none()).map(|_| 0)
            }
            None => None,
        };
        let Some(turn) = at.and_then(|at| self.pending.get_mut(at)) else {
            if event.is_last() {
                context.shared.metrics.lost(Cause::ResponseWithoutRequest, 1);
            }
            return;
        };
        turn.id = turn.id.or(id);
        turn.refusal = None;
        turn.pending.socket_event(payload, event.is_chunk(), context.now_ns, context.shared);
        if event.is_last()
            && let Some(turn) = at.and_then(|at| self.pending.remove(at))
        {
            turn.finish(Ended::Complete, context);
        }
    }

    /// The turn of a response that the server has begun: the first that waits for one, or one that
    /// nobody asked for.
    fn create<O: Outlet>(&mut self, context: &mut Context<'_, O>) -> Option<usize> {
        while self.upgrade.is_in_turn() && self.pending.front().is_some_and(|turn| turn.id.is_some()) {
            // The end of the one before was missed.
            self.pending.pop_front()?.finish(Ended::Lost, context);
        }
        let waits = |turn: &Turn| turn.id.is_none();
        let several = self.pending.iter().filter(|turn| waits(turn)).nth(1).is_some();
        if several {
            // Those that seem to be refused are, when the answer can be to a later one.
            while let Some(at) = self.pending.iter().position(|turn| waits(turn) && turn.refusal.is_some()) {
                self.pending.remove(at)?.finish(Ended::Lost, context);
            }
        }
        if let Some(at) = self.pending.iter().position(waits) {
            return Some(at);
        }
        let unsure = std::mem::take(&mut self.requests_unsure) || self.upgrade.is_in_turn();
        let turn = self.begin(context)?;
        if unsure {
            turn.pending.lose(0);
        }
        Some(self.pending.len() - 1)
    }

    /// An error, which may or may not be about a response.
    fn refuse<O: Outlet>(&mut self, event: &SocketEvent<'_>, payload: &[u8], context: &mut Context<'_, O>) {
        let cause = event.cause.map(hash);
        let at = match cause {
            Some(_) => self.pending.iter().position(|turn| turn.asked_as == cause),
            None if self.upgrade.is_in_turn() => Some(0),
            None => {
                let waiting = self.pending.iter_mut().find(|turn| turn.id.is_none() && turn.refusal.is_none());
                if let Some(turn) = waiting.filter(|_| payload.len() <= SOCKET_SETTINGS_BYTES_MAX) {
                    turn.refusal = Some((payload.into(), context.now_ns));
                }
                None
            }
        };
        if let Some(mut turn) = at.and_then(|at| self.pending.remove(at)) {
            turn.pending.socket_event(payload, false, context.now_ns, context.shared);
            turn.finish(Ended::Complete, context);
        }
    }

    fn finish_all<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        // An end that was missed is not one that never came.
        let unsure = std::mem::take(&mut self.responses_unsure);
        while let Some(turn) = self.pending.pop_front() {
            let ended = if turn.pending.answered { answered } else { unanswered };
            turn.finish(if unsure { Ended::Lost } else { ended }, context);
        }
    }
}

impl Turn {
    fn finish<O: Outlet>(mut self, ended: Ended, context: &mut Context<'_, O>) {
        if let Some((error, at_ns)) = self.refusal.take() {
            self.pending.socket_event(&error, false, at_ns, context.shared);
            self.pending.response_end(Ended::Complete, at_ns, context.shared);
        }
        self.pending.finish(ended, context);
    }
}

impl Settings {
    fn held_bytes(&self) -> usize {
        self.told.capacity() + self.asked.capacity() + self.items.capacity()
    }

    /// Keeps an event in place of the one before.
    fn keep<O: Outlet>(
        &mut self,
        event: &[u8],
        place: impl FnOnce(&mut Self) -> &mut Vec<u8>,
        context: &Context<'_, O>,
    ) {
        let kept = place(self);
        kept.clear();
        if event.len() <= SOCKET_SETTINGS_BYTES_MAX {
            kept.extend_from_slice(event);
        } else {
            context.shared.metrics.lost(Cause::EventLost, 1);
        }
    }

    /// Keeps an item of the conversation, as far as there is room.
    fn add_item(&mut self, event: &[u8]) {
        if self.items.len() + event.len() < SOCKET_SETTINGS_BYTES_MAX {
            self.items.extend_from_slice(if self.items.is_empty() { b"{\"items\":[" } else { b"," });
            self.items.extend_from_slice(event);
        }
    }

    /// Tells a response what holds for it.
    fn tell<O: Outlet>(&mut self, pending: &mut Pending, context: &mut Context<'_, O>) {
        if !self.items.is_empty() {
            self.items.extend_from_slice(b"]}");
        }
        for event in [&self.told, &self.asked, &self.items] {
            if !event.is_empty() {
                pending.ask(event, context.shared);
            }
        }
        self.items.clear();
    }
}
