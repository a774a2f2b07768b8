//! One message's body: its codings taken off, then gathered or cut into events.

use bumpalo::{Bump, collections::Vec as BumpVec};

use super::cutter::Cutter;
use crate::{
    arena::{Family, Travelling},
    genai::{self, BodyKind, DraftFamily, Extract, Extraction, Forms, Seen},
    limits::{BODY_BUFFER_KEPT_BYTES_MAX, BODY_BUFFERS_KEPT_MAX, BODY_BYTES_MAX, REASSEMBLY_BYTES_MAX},
    metrics::{Cause, Metrics},
    wire::{self, Field, coding},
};

/// A body's bytes in an arena of their own, which is free again as soon as they are parsed.
struct BytesFamily;

impl Family for BytesFamily {
    type In<'a> = BumpVec<'a, u8>;
}

/// What bodies use in turn.
#[derive(Default)]
pub(super) struct Pools {
    codings: coding::Pool,
    #[expect(clippy::vec_box, reason = "`Travelling` takes and gives boxes")]
    buffers: Vec<Box<Bump>>,
    cutters: Vec<Cutter>,
    #[expect(clippy::vec_box, reason = "bodies take and give them, and are small where they move")]
    extracts: Vec<Box<Extract>>,
    forms: Forms,
    /// Bytes gathered at this moment, for [`REASSEMBLY_BYTES_MAX`].
    gathered: usize,
}

impl Pools {
    /// Bytes gathered at this moment.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn gathered(&self) -> usize {
        self.gathered
    }

    /// Counts `held` bytes as gathered, in place of those that were `counted` for the same holder.
    /// False when that is more than may be gathered.
    pub fn recount(&mut self, counted: &mut usize, held: usize) -> bool {
        self.gathered = self.gathered.saturating_sub(*counted).saturating_add(held);
        *counted = held;
        self.gathered <= REASSEMBLY_BYTES_MAX
    }
}

/// How much room is made for each byte of a body's first piece, if that much is announced.
const ROOM_PER_BYTE: usize = 16;

/// What becomes of a body's bytes.
enum Consumer {
    /// They say nothing.
    Skip,
    /// They were wanted whole, and are not.
    Lost,
    /// Gathered.
    Whole(Travelling<BytesFamily>),
    /// A document of which what is wanted is taken out as it comes.
    Extract(Extracting),
    /// Cut into events.
    Cut(Cutter),
}

/// A document under way, and how many of its bytes count as gathered.
struct Extracting {
    extract: Box<Extract>,
    counted_bytes: usize,
    /// Something else than spaces came.
    begun: bool,
}

/// What has come of a body that was wanted whole.
pub(super) enum Gathered<'b> {
    /// It can't be had.
    Lost,
    /// Its bytes.
    Bytes(&'b mut [u8]),
    /// What is wanted of it.
    Extract(&'b Extract),
}

/// A body that is arriving.
pub(super) struct Body {
    coding: coding::Decoder,
    consumer: Consumer,
    /// Its coding is not known, and to be told from its first byte.
    guesses: bool,
    /// What the head says of its length, if it does: how much room a gathered body needs, so that it
    /// is copied once and not again with every piece that it grows by.
    expected_bytes: usize,
}

/// Where a body's content goes: the call that it belongs to.
pub(super) struct Reader<'a> {
    pub draft: &'a mut Travelling<DraftFamily>,
    pub scratch: &'a mut genai::Scratch,
    pub options: &'a genai::Options,
    pub metrics: &'a Metrics,
}

impl Reader<'_> {
    /// Hands an event on.
    fn event(&mut self, name: &[u8], data: &[u8]) -> Seen {
        let (scratch, options) = (&mut *self.scratch, self.options);
        self.draft.with_mut(|arena, draft| draft.event(arena, name, data, scratch, options))
    }
}

impl Body {
    /// A body of `kind` with these fields. Of a document, `extraction` may be all that is wanted.
    pub fn start(
        kind: BodyKind,
        extraction: Option<Extraction>,
        fields: &[Field<'_>],
        pools: &mut Pools,
        metrics: &Metrics,
    ) -> Self {
        if kind == BodyKind::Skip {
            return Self::skip();
        }
        let Ok(coding) = pools.codings.decoder(wire::fields(fields, "content-encoding")) else {
            metrics.lost(Cause::BodyCodingUnknown, 1);
            return Self { consumer: Consumer::Lost, ..Self::skip() };
        };
        let idle = pools.cutters.iter().rposition(|cutter| cutter.kind() == kind);
        let cutter = idle.map(|at| pools.cutters.swap_remove(at)).or_else(|| Cutter::new(kind));
        let consumer = match (cutter, extraction) {
            (Some(cutter), _) => Consumer::Cut(cutter),
            (None, Some(extraction)) => {
                let mut extract = pools.extracts.pop().unwrap_or_default();
                extract.begin(extraction);
                Consumer::Extract(Extracting { extract, counted_bytes: 0, begun: false })
            }
            (None, None) => Consumer::whole(pools),
        };
        let length = wire::field(fields, "content-length").and_then(|length| std::str::from_utf8(length).ok());
        let expected_bytes = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        Self { coding, consumer, guesses: false, expected_bytes }
    }

    /// Fields of its message were lost, and a content coding may have been among them.
    pub fn guess_coding(&mut self) {
        self.guesses = self.coding.is_identity();
    }

    /// A body that says nothing.
    pub fn skip() -> Self {
        Self { coding: coding::Decoder::identity(), consumer: Consumer::Skip, guesses: false, expected_bytes: 0 }
    }

    /// Takes the next bytes; returns how many events counted as chunks.
    #[inline(always)]
    pub fn feed(&mut self, bytes: &[u8], pools: &mut Pools, reader: &mut Reader<'_>) -> u64 {
        // Events that nothing was done to, as those of nearly all streams.
        if let Consumer::Cut(cutter) = &mut self.consumer
            && self.coding.is_identity()
            && !self.guesses
        {
            return cutter.feed(bytes, |name, data| reader.event(name, data));
        }
        self.feed_any(bytes, pools, reader)
    }

    #[inline(never)]
    fn feed_any(&mut self, bytes: &[u8], pools: &mut Pools, reader: &mut Reader<'_>) -> u64 {
        if self.guesses && !bytes.is_empty() {
            self.guesses = false;
            let names = coding::apparent(bytes).into_iter().map(str::as_bytes);
            self.coding = pools.codings.decoder(names).unwrap_or_else(|_| coding::Decoder::identity());
        }
        let Self { coding, consumer, expected_bytes, .. } = self;
        if matches!(consumer, Consumer::Skip | Consumer::Lost) {
            return 0;
        }
        let mut chunks = 0;
        let mut too_large = false;
        let mut consume = |bytes: &[u8]| {
            let mut is_all = false;
            if let Consumer::Extract(extracting) = consumer
                && !extracting.begun
            {
                let Some(first) = bytes.trim_ascii_start().first() else { return };
                extracting.begun = matches!(first, b'{' | b'[');
                is_all = bytes.len() >= *expected_bytes;
                if !extracting.begun {
                    // Something else than was announced; whoever reads it finds out what.
                    std::mem::replace(consumer, Consumer::whole(pools)).put_back(pools);
                }
            }
            match consumer {
                Consumer::Skip | Consumer::Lost => {}
                Consumer::Whole(gathered) => {
                    if !gather(gathered, bytes, *expected_bytes, &mut pools.gathered) {
                        too_large = true;
                        *consumer = Consumer::Lost;
                    }
                }
                Consumer::Extract(Extracting { extract, counted_bytes, .. }) => {
                    if is_all {
                        extract.feed_all(bytes, &mut pools.forms)
                    } else {
                        extract.feed(bytes)
                    }
                    let held = extract.held_bytes();
                    if !pools.recount(counted_bytes, held) || held > BODY_BYTES_MAX {
                        too_large = true;
                        std::mem::replace(consumer, Consumer::Lost).put_back(pools);
                    }
                }
                Consumer::Cut(cutter) => {
                    chunks += cutter.feed(bytes, |name, data| reader.event(name, data));
                }
            }
        };
        let decoded = if coding.is_identity() {
            consume(bytes);
            Ok(())
        } else {
            coding.feed(bytes, &mut consume)
        };
        if too_large {
            reader.metrics.lost(Cause::BodyTooLarge, 1);
        }
        if decoded.is_err() {
            reader.metrics.lost(Cause::BodyCodingMalformed, 1);
            self.lose(pools);
        }
        chunks
    }

    /// Bytes are missing here. What needs the body whole, or its coding unbroken, is lost.
    pub fn gap(&mut self, pools: &mut Pools) {
        if std::mem::take(&mut self.guesses) {
            self.lose(pools);
        }
        match &mut self.consumer {
            Consumer::Cut(cutter) if self.coding.is_identity() => cutter.gap(),
            Consumer::Skip => {}
            _ => self.lose(pools),
        }
    }

    fn lose(&mut self, pools: &mut Pools) {
        let consumer = std::mem::replace(&mut self.consumer, Consumer::Lost);
        consumer.put_back(pools);
    }

    /// The body ended. What was wanted whole is given to `whole`, as far as it is there; of a stream, what an unfinished last event held is handed on. True when something of the body was lost.
    pub fn finish(
        mut self,
        pools: &mut Pools,
        reader: &mut Reader<'_>,
        whole: impl FnOnce(&mut Reader<'_>, Gathered<'_>),
    ) -> bool {
        let mut lost = false;
        match &mut self.consumer {
            Consumer::Skip => {}
            Consumer::Lost => {
                lost = true;
                whole(reader, Gathered::Lost);
            }
            Consumer::Whole(gathered) => gathered.with_mut(|_, bytes| whole(reader, Gathered::Bytes(bytes))),
            Consumer::Extract(Extracting { extract, .. }) => {
                extract.finish();
                whole(reader, Gathered::Extract(extract));
            }
            Consumer::Cut(cutter) => {
                let skipped = cutter.finish(|name, data| {
                    reader.event(name, data);
                });
                if skipped > 0 {
                    reader.metrics.lost(Cause::EventLost, skipped);
                    lost = true;
                }
            }
        }
        self.put_back(pools);
        lost
    }

    /// Gives back what it took from the pools.
    pub fn put_back(self, pools: &mut Pools) {
        pools.codings.put_back(self.coding);
        self.consumer.put_back(pools);
    }
}

impl Consumer {
    /// Gathers, from the first byte on.
    fn whole(pools: &mut Pools) -> Self {
        let arena = pools.buffers.pop().unwrap_or_default();
        Self::Whole(Travelling::new(arena, |arena| BumpVec::new_in(arena)))
    }

    fn put_back(self, pools: &mut Pools) {
        match self {
            Self::Whole(gathered) => {
                pools.gathered = pools.gathered.saturating_sub(gathered.with(|bytes| bytes.len()));
                let arena = gathered.into_arena();
                if pools.buffers.len() < BODY_BUFFERS_KEPT_MAX && arena.allocated_bytes() <= BODY_BUFFER_KEPT_BYTES_MAX
                {
                    pools.buffers.push(arena);
                }
            }
            Self::Extract(Extracting { extract, counted_bytes, .. }) => {
                pools.gathered = pools.gathered.saturating_sub(counted_bytes);
                let is_kept = extract.capacity_bytes() <= BODY_BUFFER_KEPT_BYTES_MAX;
                if pools.extracts.len() < BODY_BUFFERS_KEPT_MAX && is_kept {
                    pools.extracts.push(extract);
                }
            }
            Self::Cut(mut cutter) if pools.cutters.len() < BODY_BUFFERS_KEPT_MAX => {
                // Whatever is left in it belongs to a body that nobody reads any more.
                cutter.finish(|_, _| {});
                pools.cutters.push(cutter);
            }
            _ => {}
        }
    }
}

/// Appends within the budgets; false, with nothing counted as gathered any more, beyond them.
fn gather(
    gathered: &mut Travelling<BytesFamily>,
    bytes: &[u8],
    expected_bytes: usize,
    in_reassembly: &mut usize,
) -> bool {
    gathered.with_mut(|_, body| {
        let fits = body.len() + bytes.len() <= BODY_BYTES_MAX && *in_reassembly + bytes.len() <= REASSEMBLY_BYTES_MAX;
        if fits {
            if body.is_empty() {
                // Whoever announces much and sends little gets little room.
                body.reserve(expected_bytes.min(bytes.len().saturating_mul(ROOM_PER_BYTE)));
            }
            body.extend_from_slice_copy(bytes);
            *in_reassembly += bytes.len();
        } else {
            *in_reassembly = in_reassembly.saturating_sub(body.len());
        }
        fits
    })
}
