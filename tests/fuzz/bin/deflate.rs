#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocifs_fuzz::deflate::check(bytes));
