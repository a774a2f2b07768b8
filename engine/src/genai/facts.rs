//! What has been learnt of one exchange, and how a JSON field becomes an attribute.

use bumpalo::Bump;

use super::{failure, json::Json, plan::Plan, text::List};
use crate::{
    exchange::Call,
    limits::{LIST_MAX, TEXT_BYTES_MAX, TEXTS_BYTES_MAX},
};

/// Everything that an exchange has said so far.
#[derive(Default)]
pub(super) struct Facts<'a> {
    /// The attributes, without those that are only known at the end.
    pub call: Call<'a>,
    /// Token counts as the provider gave them.
    pub usage: Usage,
    /// Finish reasons by choice, sorted.
    finish: List<'a, (i64, &'a str)>,
    /// An error was reported, in words or by status.
    pub failed: bool,
    /// The stream's last event came, whatever the connection did afterwards.
    pub ended: bool,
    /// Bytes of strings kept, against [`TEXTS_BYTES_MAX`].
    kept_bytes: usize,
}

/// Token counts as they are on the wire. Streams repeat them, and the latest one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub cache_read: Option<i64>,
    pub cache_creation: Option<i64>,
    pub reasoning: Option<i64>,
    pub total: Option<i64>,
    /// Input that the provider counts apart from `input` (Gemini's tool use prompts).
    pub input_apart: Option<i64>,
}

/// Which of a provider's counts add up to input and output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sum {
    /// Input includes what was cached. Output includes reasoning, unless the total says otherwise.
    Inclusive,
    /// What was cached comes on top of the input.
    CacheApart,
    /// Reasoning comes on top of the output.
    ReasoningApart,
}

impl Usage {
    /// `gen_ai.usage.*` of `call`.
    pub fn tell(&self, sum: Sum, call: &mut Call<'_>) {
        let plus = |count: Option<i64>, more: Option<i64>| count.map(|count| count.saturating_add(more.unwrap_or(0)));
        call.input_tokens = plus(self.input, self.input_apart);
        call.output_tokens = self.output;
        call.cache_read_tokens = self.cache_read;
        call.cache_creation_tokens = self.cache_creation;
        call.reasoning_tokens = self.reasoning;
        match sum {
            Sum::CacheApart => call.input_tokens = plus(plus(call.input_tokens, self.cache_read), self.cache_creation),
            // A count of zero is left out: thinking may be all there was.
            Sum::ReasoningApart => call.output_tokens = plus(self.output, self.reasoning).or(self.reasoning),
            Sum::Inclusive => {
                let apart = plus(plus(self.input, self.output), self.reasoning);
                if self.reasoning.is_some_and(|count| count > 0) && self.total.is_some() && self.total == apart {
                    call.output_tokens = plus(self.output, self.reasoning);
                }
                // Some hosts count cached tokens over a whole conversation; those are no part of
                // this input.
                call.cache_read_tokens = self.cache_read.filter(|read| self.input.is_none_or(|input| *read <= input));
            }
        }
    }
}

impl<'a> Facts<'a> {
    /// Something went wrong. Of several kinds, the first counts.
    pub fn fail(&mut self, arena: &'a Bump, kind: Option<&str>) {
        self.failed = true;
        if let (None, Some(kind)) =
            (self.call.error_type, kind.map(failure::aws_type).filter(|kind| failure::is_word(kind)))
        {
            self.call.error_type = self.keep(arena, kind);
        }
    }

    /// A copy of `text` in the arena, cut to [`TEXT_BYTES_MAX`]; `None` once the exchange has kept
    /// all that it may.
    pub fn keep(&mut self, arena: &'a Bump, text: &str) -> Option<&'a str> {
        let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or("");
        if self.kept_bytes + text.len() > TEXTS_BYTES_MAX {
            return None;
        }
        self.kept_bytes += text.len();
        Some(arena.alloc_str(text))
    }

    /// A string or an array of strings as a list.
    fn keep_list(&mut self, arena: &'a Bump, value: Json<'_>) -> Option<&'a [&'a str]> {
        let mut list = List::default();
        let single = value.text().is_some().then_some(value);
        for text in single.into_iter().chain(value.items()).filter_map(Json::text).take(LIST_MAX) {
            list.push(arena, self.keep(arena, text)?);
        }
        (!list.as_slice().is_empty()).then(|| list.into_slice())
    }

    /// A choice ended. Its latest reason counts, since a stream may repeat its last chunk.
    pub fn finish(&mut self, arena: &'a Bump, choice: i64, reason: &str) {
        // Until the end, DashScope says "null" in so many letters, and llama.cpp "none".
        if matches!(reason, "" | "null" | "none") {
            return;
        }
        let place = self.finish.as_slice().binary_search_by_key(&choice, |(choice, _)| *choice);
        match place {
            Ok(at) if self.finish.as_slice().get(at).is_some_and(|(_, known)| *known == reason) => {}
            Err(_) if self.finish.as_slice().len() >= LIST_MAX => {}
            _ => {
                let Some(reason) = self.keep(arena, reason) else { return };
                match place {
                    Ok(at) => {
                        self.finish.as_mut_slice().iter_mut().skip(at).take(1).for_each(|(_, known)| *known = reason)
                    }
                    Err(at) => {
                        self.finish.push(arena, (choice, reason));
                        if let Some(tail) = self.finish.as_mut_slice().get_mut(at..) {
                            tail.rotate_right(1);
                        }
                    }
                }
            }
        }
    }

    /// The call, and the reasons why its choices ended. An answer that was broken off has none.
    pub fn finishing(&mut self) -> (&mut Call<'a>, impl Fn(i64) -> &'a str) {
        let (finish, failed) = (&self.finish, self.failed);
        let reason = move |choice: i64| {
            let at = finish.as_slice().binary_search_by_key(&choice, |(choice, _)| *choice).ok();
            let reason = at.and_then(|at| finish.as_slice().get(at)).map(|(_, reason)| *reason);
            reason.unwrap_or(if failed { "error" } else { "" })
        };
        (&mut self.call, reason)
    }

    /// The finished call.
    pub fn conclude(&mut self, arena: &'a Bump, sum: Sum) -> &mut Call<'a> {
        let reasons = self.finish.as_slice();
        if !reasons.is_empty() {
            self.call.finish_reasons = Some(arena.alloc_slice_fill_iter(reasons.iter().map(|(_, reason)| *reason)));
        }
        self.usage.tell(sum, &mut self.call);
        &mut self.call
    }

    /// Takes from `json` what the rules of `plan` say.
    pub fn read(&mut self, arena: &'a Bump, json: Json<'_>, plan: &'static Plan) {
        let places = json.places(plan.shape);
        for step in &plan.steps {
            if step.slots.is_empty() {
                let _useful = self.set(arena, json, step.to, step.inside);
            }
            if places.present & step.bits == 0 {
                continue;
            }
            let values = step.slots.iter().filter_map(|slot| places.value(usize::from(*slot)));
            let mut values = values.filter(|value| !value.is_null());
            let _first_that_fits = values.any(|value| self.set(arena, value, step.to, step.inside).is_some());
        }
    }

    /// Takes the attribute `to` from `value`, in which there may be objects that are read by the plan
    /// `inside`; `None` when the value is of no use for it.
    fn set(&mut self, arena: &'a Bump, value: Json<'_>, to: To, inside: Option<&'static Plan>) -> Option<()> {
        match to {
            To::Inside(_) => {
                value.is_object().then_some(())?;
                self.read(arena, value, inside?);
            }
            To::Each(_) => {
                let plan = inside?;
                value.items().take(LIST_MAX).for_each(|item| self.read(arena, item, plan));
            }
            To::First(_) => self.read(arena, value.items().next().unwrap_or(value), inside?),
            To::Custom(read) | To::Seeing(_, read) => read(self, arena, value),
            To::RequestModel => self.call.request_model = Some(self.keep(arena, value.text()?)?),
            To::MaxTokens => self.call.max_tokens = Some(value.int()?),
            To::Temperature => self.call.temperature = Some(value.float()?),
            To::TopP => self.call.top_p = Some(value.float()?),
            To::TopK => self.call.top_k = Some(value.int()?),
            To::FrequencyPenalty => self.call.frequency_penalty = Some(value.float()?),
            To::PresencePenalty => self.call.presence_penalty = Some(value.float()?),
            To::Seed => self.call.seed = Some(value.int()?),
            To::ChoiceCount => self.call.choice_count = Some(value.int()?).filter(|count| *count != 1),
            To::StopSequences => self.call.stop_sequences = Some(self.keep_list(arena, value)?),
            To::EncodingFormats => self.call.encoding_formats = Some(self.keep_list(arena, value)?),
            To::DimensionCount => self.call.dimension_count = Some(value.count()?),
            To::Stream => self.call.stream = value.bool()?,
            To::ReasoningLevel => self.call.reasoning_level = Some(self.keep(arena, value.text()?)?),
            To::PreviousResponse => self.call.previous_response_id = Some(self.keep(arena, value.text()?)?),
            To::Conversation => self.call.conversation_id = Some(self.keep(arena, value.text()?)?),
            To::PromptName => self.call.prompt_name = Some(self.keep(arena, value.text()?)?),
            To::PromptVersion => self.call.prompt_version = Some(self.keep(arena, value.text()?)?),
            To::GuardrailId => self.call.bedrock_guardrail_id = Some(self.keep(arena, value.text()?)?),
            To::RequestServiceTier => {
                let tier = value.text().filter(|tier| *tier != "auto")?;
                self.call.openai_request_service_tier = Some(self.keep(arena, tier)?);
            }
            To::OutputFormat => self.call.output_type = Some(output_type(value.text()?)?),
            To::ResponseId => keep_first(self, arena, value, |call| &mut call.response_id)?,
            To::ResponseModel => keep_first(self, arena, value, |call| &mut call.response_model)?,
            To::ResponseServiceTier => keep_latest(self, arena, value, |call| &mut call.openai_response_service_tier)?,
            To::SystemFingerprint => keep_first(self, arena, value, |call| &mut call.openai_system_fingerprint)?,
            To::FinishReason => self.finish(arena, 0, value.text()?),
            To::Input => self.usage.input = Some(value.count()?),
            To::Output => self.usage.output = Some(value.count()?),
            To::CacheRead => self.usage.cache_read = Some(value.count()?),
            To::CacheCreation => self.usage.cache_creation = Some(value.count()?),
            To::Reasoning => self.usage.reasoning = Some(value.count()?),
            To::Total => self.usage.total = Some(value.count()?),
            To::InputMore => self.usage.input = Some(self.usage.input.unwrap_or(0).saturating_add(value.count()?)),
            To::Ended => self.ended |= value.bool()?,
            To::OutputJson => self.call.output_type = Some("json"),
            To::InputApart => self.usage.input_apart = Some(value.count()?),
        }
        Some(())
    }
}

/// Ids and models are the same in every event of a stream.
fn keep_first<'a>(
    facts: &mut Facts<'a>,
    arena: &'a Bump,
    value: Json<'_>,
    field: impl for<'c> Fn(&'c mut Call<'a>) -> &'c mut Option<&'a str>,
) -> Option<()> {
    let text = value.text()?;
    if field(&mut facts.call).is_none() {
        let kept = facts.keep(arena, text)?;
        *field(&mut facts.call) = Some(kept);
    }
    Some(())
}

/// What a stream only knows at its end.
fn keep_latest<'a>(
    facts: &mut Facts<'a>,
    arena: &'a Bump,
    value: Json<'_>,
    field: impl for<'c> Fn(&'c mut Call<'a>) -> &'c mut Option<&'a str>,
) -> Option<()> {
    let text = value.text()?;
    if *field(&mut facts.call) != Some(text) {
        let kept = facts.keep(arena, text)?;
        *field(&mut facts.call) = Some(kept);
    }
    Some(())
}

/// `gen_ai.output.type` for the name of a response format.
fn output_type(format: &str) -> Option<&'static str> {
    match format {
        "text" | "text/plain" => Some("text"),
        "json" | "json_object" | "json_schema" | "application/json" => Some("json"),
        _ => None,
    }
}

/// One field of a document: under which key it is, and what it is.
pub(super) struct Rule {
    /// The first of these that is there with a value of the right type counts.
    pub keys: &'static [&'static str],
    /// Of a rule for the object itself, the paths of what it looks at; none for all that there is.
    pub sees: &'static [&'static [&'static str]],
    /// What becomes of the value.
    pub to: To,
}

impl Rule {
    /// The rules of the objects in the value.
    pub fn inside(&self) -> Option<&'static [Rule]> {
        match self.to {
            To::Inside(rules) | To::Each(rules) | To::First(rules) => Some(rules),
            _ => None,
        }
    }
}

/// Shorthand for a [`Rule`].
pub(super) const fn rule(keys: &'static [&'static str], to: To) -> Rule {
    Rule { keys, sees: &[], to }
}

/// The object itself, for what takes several of its fields to know: those at the paths that it `sees`, or
/// any.
pub(super) const fn whole(sees: &'static [&'static [&'static str]], to: To) -> Rule {
    Rule { keys: &[], sees, to }
}

/// What a field is.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// An object with fields of its own.
    Inside(&'static [Rule]),
    /// An array of objects.
    Each(&'static [Rule]),
    /// An object, or the first one of an array.
    First(&'static [Rule]),
    /// Objects in an array, of which these keys are looked at.
    Seeing(&'static [&'static str], for<'a> fn(&mut Facts<'a>, &'a Bump, Json<'_>)),
    /// Something that takes more than a look.
    Custom(for<'a> fn(&mut Facts<'a>, &'a Bump, Json<'_>)),
    RequestModel,
    MaxTokens,
    Temperature,
    TopP,
    TopK,
    FrequencyPenalty,
    PresencePenalty,
    Seed,
    ChoiceCount,
    StopSequences,
    EncodingFormats,
    DimensionCount,
    Stream,
    ReasoningLevel,
    PreviousResponse,
    Conversation,
    PromptName,
    PromptVersion,
    GuardrailId,
    RequestServiceTier,
    OutputFormat,
    ResponseId,
    ResponseModel,
    ResponseServiceTier,
    SystemFingerprint,
    FinishReason,
    Input,
    Output,
    CacheRead,
    CacheCreation,
    Reasoning,
    Total,
    InputApart,
    /// One of several counts that add up.
    InputMore,
    /// Whether a stream is over.
    Ended,
    /// A schema for the output.
    OutputJson,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finish_reasons_are_ordered_by_choice() {
        let arena = Bump::new();
        let mut facts = Facts::default();
        for (choice, reason) in [(2, "stop"), (0, "length"), (1, "stop"), (2, "tool_calls"), (0, ""), (3, "null")] {
            facts.finish(&arena, choice, reason);
        }
        (100..1000).for_each(|choice| facts.finish(&arena, choice, "x"));
        let reasons = facts.conclude(&arena, Sum::Inclusive).finish_reasons.unwrap();
        assert_eq!(reasons.get(..4), Some(&["length", "stop", "tool_calls", "x"][..]));
        assert_eq!(reasons.len(), LIST_MAX);
    }

    #[test]
    fn counts_add_up() {
        let tell = |sum, usage: Usage| {
            let mut call = Call::default();
            usage.tell(sum, &mut call);
            (call.input_tokens, call.output_tokens, call.cache_read_tokens)
        };
        let usage = Usage { input: Some(12), output: Some(1), reasoning: Some(228), ..Usage::default() };
        assert_eq!(tell(Sum::Inclusive, usage), (Some(12), Some(1), None));
        assert_eq!(tell(Sum::Inclusive, Usage { total: Some(241), ..usage }), (Some(12), Some(229), None));
        assert_eq!(tell(Sum::ReasoningApart, usage), (Some(12), Some(229), None));
        let usage = Usage { input: Some(3), cache_read: Some(4), cache_creation: Some(5), ..Usage::default() };
        assert_eq!(tell(Sum::CacheApart, usage), (Some(12), None, Some(4)));
        assert_eq!(tell(Sum::Inclusive, usage), (Some(3), None, None), "more cached than there was");
        assert_eq!(tell(Sum::CacheApart, Usage { input: None, ..usage }), (None, None, Some(4)), "nothing is made up");
        assert_eq!(tell(Sum::CacheApart, Usage { input: Some(i64::MAX), ..usage }).0, Some(i64::MAX));
    }

    #[test]
    fn what_an_exchange_keeps_is_bounded() {
        let arena = Bump::new();
        let mut facts = Facts::default();
        assert_eq!(facts.keep(&arena, &"é".repeat(TEXT_BYTES_MAX)).map(str::len), Some(TEXT_BYTES_MAX));
        let kept = (0..).map_while(|_| facts.keep(&arena, &"x".repeat(TEXT_BYTES_MAX))).count();
        assert!(kept < TEXTS_BYTES_MAX / TEXT_BYTES_MAX);
    }
}
