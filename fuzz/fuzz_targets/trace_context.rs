#![no_main]

use agentsight::genai::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| exercise::trace_context(data));
