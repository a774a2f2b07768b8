//! What tells the points of metrics apart.

use agentsight_otlp::AnyValue;

use super::instrument::Slot;
use crate::{
    exchange::{Call, Role},
    semconv as name,
};

/// The attributes of an exchange that any of its metrics has, borrowed from it or owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels<S> {
    /// Exchanges of either side go into different metrics.
    server: bool,
    operation: &'static str,
    provider: S,
    request_model: Option<S>,
    response_model: Option<S>,
    server_address: Option<S>,
    server_port: Option<u16>,
    error_type: Option<S>,
    service_tier: Option<S>,
    system_fingerprint: Option<S>,
}

impl<'a> Labels<&'a str> {
    /// The labels of a call.
    pub fn new(role: Role, call: &Call<'a>) -> Self {
        let of_client = |value| if role == Role::Client { value } else { None };
        Self {
            server: role == Role::Server,
            operation: call.operation,
            provider: call.provider,
            request_model: call.request_model,
            response_model: call.response_model,
            server_address: call.server_address,
            server_port: call.server_port,
            error_type: call.error_type,
            service_tier: of_client(call.openai_response_service_tier),
            system_fingerprint: of_client(call.openai_system_fingerprint),
        }
    }

    /// A copy that outlives the exchange.
    pub fn to_owned(self) -> Labels<Box<str>> {
        Labels {
            server: self.server,
            operation: self.operation,
            provider: self.provider.into(),
            request_model: self.request_model.map(Box::from),
            response_model: self.response_model.map(Box::from),
            server_address: self.server_address.map(Box::from),
            server_port: self.server_port,
            error_type: self.error_type.map(Box::from),
            service_tier: self.service_tier.map(Box::from),
            system_fingerprint: self.system_fingerprint.map(Box::from),
        }
    }

    /// Without those that the points of `slot` don't have.
    pub fn of(self, slot: Slot) -> Self {
        match slot {
            Slot::InputTokens | Slot::OutputTokens => Self { error_type: None, ..self },
            Slot::Duration | Slot::ServerDuration => self,
            Slot::FirstChunk | Slot::PerChunk | Slot::ServerFirstToken | Slot::ServerPerToken => {
                Self { error_type: None, service_tier: None, system_fingerprint: None, ..self }
            }
        }
    }

    /// Shows them as attributes.
    pub fn visit(self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        visit(name::GEN_AI_OPERATION_NAME, &AnyValue::Str(self.operation));
        let mut text = |key, value: Option<&str>| {
            if let Some(value) = value {
                visit(key, &AnyValue::Str(value));
            }
        };
        // Without a host nothing says who provides.
        text(name::GEN_AI_PROVIDER_NAME, Some(self.provider).filter(|provider| !provider.is_empty()));
        text(name::GEN_AI_REQUEST_MODEL, self.request_model);
        text(name::GEN_AI_RESPONSE_MODEL, self.response_model);
        text(name::SERVER_ADDRESS, self.server_address);
        text(name::ERROR_TYPE, self.error_type);
        text(name::OPENAI_RESPONSE_SERVICE_TIER, self.service_tier);
        text(name::OPENAI_RESPONSE_SYSTEM_FINGERPRINT, self.system_fingerprint);
        if let Some(port) = self.server_port {
            visit(name::SERVER_PORT, &AnyValue::Int(port.into()));
        }
    }
}

impl Labels<Box<str>> {
    /// A view of them.
    pub fn borrowed(&self) -> Labels<&str> {
        Labels {
            server: self.server,
            operation: self.operation,
            provider: &self.provider,
            request_model: self.request_model.as_deref(),
            response_model: self.response_model.as_deref(),
            server_address: self.server_address.as_deref(),
            server_port: self.server_port,
            error_type: self.error_type.as_deref(),
            service_tier: self.service_tier.as_deref(),
            system_fingerprint: self.system_fingerprint.as_deref(),
        }
    }
}
