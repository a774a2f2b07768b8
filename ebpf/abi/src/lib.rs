//! What crosses from the kernel programs to the engine.
#![no_std]
