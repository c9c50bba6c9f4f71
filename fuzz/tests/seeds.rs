//! The seeds, every cut of them and every byte of them changed: what a fuzzer does in its first second, on stable Rust.

use std::{fs, path::Path};

fn each_seed(target: &str, judge: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut seeds = 0;
    for seed in fs::read_dir(&folder).expect("the seeds") {
        let seed = fs::read(seed.expect("a seed").path()).expect("a seed");
        (0..=seed.len()).for_each(|length| judge(&seed[..length]));
        for at in 0..seed.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] = byte;
                judge(&changed);
            }
        }
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
}

#[test]
fn answers_near_the_seeds_break_no_rule() {
    each_seed("kafka_responses", tine_fuzz::responses::judge);
}

#[test]
fn record_sets_near_the_seeds_break_no_rule() {
    each_seed("kafka_records", tine_fuzz::record_sets::judge);
}

#[test]
fn frames_near_the_seeds_break_no_rule() {
    each_seed("worker_frames", tine_fuzz::frames::judge);
}

#[test]
#[should_panic(expected = "bytes were held")]
fn memory_beyond_the_bound_is_noticed() {
    tine_fuzz::memory::at_most(1 << 10, || drop(std::hint::black_box(Vec::<u8>::with_capacity(2 << 10))));
}
