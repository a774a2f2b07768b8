//! From HTTP messages to GenAI calls: is it one, whose, and what does it say. Pure.
