//! Whose API a host is: `gen_ai.provider.name`.

use std::sync::LazyLock;

use super::json::{Inside, Shape};

/// `gen_ai.provider.name` of OpenAI.
pub(super) const OPENAI: &str = "openai";
/// Of Azure OpenAI.
pub(super) const AZURE_OPENAI: &str = "azure.ai.openai";
/// Of Azure AI Inference.
pub(super) const AZURE_INFERENCE: &str = "azure.ai.inference";
/// Of Anthropic.
pub(super) const ANTHROPIC: &str = "anthropic";
/// Of Amazon Bedrock.
pub(super) const BEDROCK: &str = "aws.bedrock";
/// Of Cohere.
pub(super) const COHERE: &str = "cohere";
/// Of xAI.
pub(super) const X_AI: &str = "x_ai";

/// A rule: the host's pattern (a `*` stands for anything without a dot, a leading `**` for any
/// number of labels), what the path has to begin with, and the name. The first that fits counts.
struct Rule(&'static str, &'static str, &'static str);

const RULES: &[Rule] = &[
    Rule("api.openai.com", "", OPENAI),
    Rule("**.api.openai.com", "", OPENAI),
    Rule("**.openai.azure.com", "", AZURE_OPENAI),
    Rule("**.openai.azure.us", "", AZURE_OPENAI),
    Rule("**.openai.azure.cn", "", AZURE_OPENAI),
    Rule("**.services.ai.azure.com", "/anthropic/", ANTHROPIC),
    Rule("**.services.ai.azure.com", "/openai/", AZURE_OPENAI),
    Rule("**.services.ai.azure.com", "", AZURE_INFERENCE),
    Rule("**.cognitiveservices.azure.com", "/openai/", AZURE_OPENAI),
    Rule("**.cognitiveservices.azure.com", "/models/", AZURE_INFERENCE),
    Rule("**.cognitiveservices.azure.com", "", AZURE_OPENAI),
    Rule("**.inference.ai.azure.com", "", AZURE_INFERENCE),
    Rule("models.github.ai", "", AZURE_INFERENCE),
    Rule("api.anthropic.com", "", ANTHROPIC),
    Rule("aws-external-anthropic.*.api.aws", "", ANTHROPIC),
    Rule("bedrock-mantle.*.api.aws", "/anthropic/", ANTHROPIC),
    Rule("bedrock-mantle.*.api.aws", "", BEDROCK),
    Rule("bedrock-*.*.amazonaws.com", "", BEDROCK),
    Rule("bedrock-*.*.amazonaws.com.cn", "", BEDROCK),
    Rule("**.bedrock-runtime.*.vpce.amazonaws.com", "", BEDROCK),
    Rule("**.bedrock-agent-runtime.*.vpce.amazonaws.com", "", BEDROCK),
    Rule("generativelanguage.googleapis.com", "", "gcp.gemini"),
    Rule("aiplatform.googleapis.com", "", "gcp.vertex_ai"),
    Rule("*-aiplatform.googleapis.com", "", "gcp.vertex_ai"),
    Rule("aiplatform.*.rep.googleapis.com", "", "gcp.vertex_ai"),
    Rule("**.googleapis.com", "", "gcp.gen_ai"),
    Rule("api.cohere.com", "", COHERE),
    Rule("api.cohere.ai", "", COHERE),
    Rule("api.mistral.ai", "", "mistral_ai"),
    Rule("codestral.mistral.ai", "", "mistral_ai"),
    Rule("api.groq.com", "", "groq"),
    Rule("api.deepseek.com", "", "deepseek"),
    Rule("api.x.ai", "", X_AI),
    Rule("*.api.x.ai", "", X_AI),
    Rule("api.perplexity.ai", "", "perplexity"),
    Rule("api.moonshot.ai", "", "moonshot_ai"),
    Rule("api.moonshot.cn", "", "moonshot_ai"),
    Rule("*.ml.cloud.ibm.com", "", "ibm.watsonx.ai"),
];

/// The provider behind `host` (in lower case, without its port) for a request to `path`; `None` for
/// a host that no rule knows.
pub(super) fn of(host: &str, path: &str) -> Option<&'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    // No pattern before such a rule fits its name.
    let (hosts, names) = &*EXACT;
    if let Some(name) = hosts.slot(host.as_bytes()).and_then(|slot| names.get(slot)) {
        return Some(name);
    }
    // Clients that join base URL and path carelessly send `//openai/…`.
    let path = path.trim_start_matches('/');
    let found = PATTERNS.iter().find(|(ending, Rule(pattern, prefix, _))| {
        // Rules out almost every rule at once.
        host.ends_with(ending) && host_matches(pattern, host) && path.starts_with(prefix.trim_start_matches('/'))
    });
    found.map(|(_, Rule(_, _, name))| *name)
}

/// Rules for one host and any path, by slot.
static EXACT: LazyLock<(Shape, Vec<&str>)> = LazyLock::new(|| {
    let rules = || RULES.iter().filter(|Rule(pattern, prefix, _)| !pattern.contains('*') && prefix.is_empty());
    let hosts = rules().map(|Rule(host, ..)| (*host, Inside::All));
    (Shape::new(hosts, false), rules().map(|Rule(_, _, name)| *name).collect())
});

/// The other rules, each with what follows the last star of its pattern.
static PATTERNS: LazyLock<Vec<(&str, &Rule)>> = LazyLock::new(|| {
    let others = RULES.iter().filter(|Rule(pattern, prefix, _)| pattern.contains('*') || !prefix.is_empty());
    others.map(|rule| (rule.0.rsplit('*').next().unwrap_or_default(), rule)).collect()
});

fn host_matches(pattern: &str, host: &str) -> bool {
    let Some(suffix) = pattern.strip_prefix("**") else { return labels_match(pattern, host) };
    // As many labels at the host's end as there are in the pattern, after at least one other.
    let labels = suffix.split('.').count() - 1;
    let Some((at, _)) = host.rmatch_indices('.').nth(labels.saturating_sub(1)) else { return false };
    at > 0 && host.get(at..).is_some_and(|end| labels_match(suffix, end))
}

fn labels_match(pattern: &str, host: &str) -> bool {
    let (mut pattern, mut host) = (pattern.split('.'), host.split('.'));
    loop {
        match (pattern.next(), host.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if label_matches(pattern, label) => {}
            _ => return false,
        }
    }
}

fn label_matches(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        Some((prefix, suffix)) => {
            label.len() > prefix.len() + suffix.len() && label.starts_with(prefix) && label.ends_with(suffix)
        }
        None => pattern == label,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn hosts_are_known() {
        for (host, path, expect) in [
            ("api.openai.com", "/v1/chat/completions", Some("openai")),
            ("eu.api.openai.com", "/v1/responses", Some("openai")),
            ("api.openai.com.", "/v1/responses", Some("openai")),
            ("xapi.openai.com", "/v1/responses", None),
            ("api.openai.com.evil.example", "/v1/responses", None),
            ("res.openai.azure.com", "/openai/deployments/d/chat/completions", Some("azure.ai.openai")),
            ("res.services.ai.azure.com", "//openai/v1/responses", Some("azure.ai.openai")),
            ("res.services.ai.azure.com", "/models/chat/completions", Some("azure.ai.inference")),
            ("res.services.ai.azure.com", "/anthropic/v1/messages", Some("anthropic")),
            (".services.ai.azure.com", "/anthropic/v1/messages", None),
            ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse", Some("aws.bedrock")),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "/", Some("aws.bedrock")),
            ("vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", "/", Some("aws.bedrock")),
            ("bedrock-mantle.us-east-1.api.aws", "/anthropic/v1/messages", Some("anthropic")),
            ("bedrock-mantle.us-east-1.api.aws", "/openai/v1/responses", Some("aws.bedrock")),
            ("us-central1-aiplatform.googleapis.com", "/", Some("gcp.vertex_ai")),
            ("aiplatform.googleapis.com", "/", Some("gcp.vertex_ai")),
            ("aiplatform.us.rep.googleapis.com", "/", Some("gcp.vertex_ai")),
            ("generativelanguage.googleapis.com", "/", Some("gcp.gemini")),
            ("other.googleapis.com", "/", Some("gcp.gen_ai")),
            ("api.x.ai", "/v1/chat/completions", Some("x_ai")),
            ("us-south.ml.cloud.ibm.com", "/", Some("ibm.watsonx.ai")),
            ("localhost", "/v1/chat/completions", None),
            ("127.0.0.1", "/", None),
            ("", "", None),
            ("::1", "", None),
        ] {
            assert_eq!(super::of(host, path), expect, "{host}{path}");
        }
    }
}
