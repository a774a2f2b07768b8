//! The values of a document that `simd-json` has parsed.

use simd_json::{Node, StaticNode};

/// One value: its node on the tape and those inside it.
#[derive(Clone, Copy)]
pub(in crate::genai) struct Value<'t>(pub(super) &'t [Node<'t>]);

impl<'t> Value<'t> {
    /// The value of `key`, when this is an object. Of duplicates the last counts, as it does for
    /// the parsers that servers and clients use.
    pub fn get(self, key: &str) -> Option<Value<'t>> {
        self.members().filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }

    /// The members of an object in order; nothing for any other value.
    pub fn members(self) -> Entries<'t> {
        match self.0.first() {
            Some(Node::Object { .. }) => Entries(self.inside()),
            _ => Entries(&[]),
        }
    }

    /// The elements of an array in order; nothing for any other value.
    pub fn items(self) -> Items<'t> {
        match self.0.first() {
            Some(Node::Array { .. }) => Items(self.inside()),
            _ => Items(&[]),
        }
    }

    fn inside(self) -> &'t [Node<'t>] {
        self.0.get(1..width(self.0)).unwrap_or(&[])
    }

    /// Any string.
    pub fn string(self) -> Option<&'t str> {
        match self.0.first()? {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, however it is spelled.
    pub fn int(self) -> Option<i64> {
        match *self.0.first()? {
            Node::Static(StaticNode::I64(number)) => Some(number),
            Node::Static(StaticNode::U64(number)) => number.try_into().ok(),
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within what a double holds exactly")]
            Node::Static(StaticNode::F64(number))
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 =>
            {
                Some(number as i64)
            }
            _ => None,
        }
    }

    /// Any finite number.
    pub fn float(self) -> Option<f64> {
        match *self.0.first()? {
            #[expect(clippy::cast_precision_loss, reason = "the attribute is a double")]
            Node::Static(StaticNode::I64(number)) => Some(number as f64),
            #[expect(clippy::cast_precision_loss, reason = "the attribute is a double")]
            Node::Static(StaticNode::U64(number)) => Some(number as f64),
            Node::Static(StaticNode::F64(number)) => number.is_finite().then_some(number),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn bool(self) -> Option<bool> {
        match *self.0.first()? {
            Node::Static(StaticNode::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        matches!(self.0.first(), Some(Node::Static(StaticNode::Null)) | None)
    }

    /// Whether this is an object.
    pub fn is_object(self) -> bool {
        matches!(self.0.first(), Some(Node::Object { .. }))
    }

    /// Whether this is an array.
    pub fn is_array(self) -> bool {
        matches!(self.0.first(), Some(Node::Array { .. }))
    }

    /// The value's node, for whoever writes it out again.
    pub fn node(self) -> Option<&'t Node<'t>> {
        self.0.first()
    }
}

/// Nodes that the value at the front takes.
fn width(nodes: &[Node<'_>]) -> usize {
    match nodes.first() {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => count.saturating_add(1),
        Some(_) => 1,
        None => 0,
    }
}

fn split<'t>(nodes: &'t [Node<'t>]) -> Option<(Value<'t>, &'t [Node<'t>])> {
    let (value, rest) = nodes.split_at_checked(width(nodes)).filter(|(value, _)| !value.is_empty())?;
    Some((Value(value), rest))
}

/// The members of an object.
pub(in crate::genai) struct Entries<'t>(&'t [Node<'t>]);

impl<'t> Iterator for Entries<'t> {
    type Item = (&'t str, Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = split(self.0)?;
        let (value, rest) = split(rest)?;
        self.0 = rest;
        Some((key.string()?, value))
    }
}

/// The elements of an array.
pub(in crate::genai) struct Items<'t>(&'t [Node<'t>]);

impl<'t> Iterator for Items<'t> {
    type Item = Value<'t>;

    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = split(self.0)?;
        self.0 = rest;
        Some(value)
    }
}
