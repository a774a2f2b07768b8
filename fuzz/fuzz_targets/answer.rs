#![no_main]

use agentsight::export::answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| answer::exercise(data));
