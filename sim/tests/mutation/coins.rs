//! Operators that change their mind: what a record falls under is another thing every time that it is read.
//!
//! A coin's two sides are two sets of keys. Whatever goes wrong, the table must hold one side of each coin, whole, and nothing of
//! the other: a group whose replay differs from what is committed halts. Three kinds of coins make that hard to see:
//! those that move to another shard, those whose merged rows stay alike, and those whose row hashes cancel.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tine_core::{
    hash::{Hash128, hash64},
    id::Shard,
};
use tine_sim::{Cell, Mode, Report, Simulation, World, simulate, world::SHARDS};
use tine_trident::topology::Topology;

/// A record's two sides: the keys under which it counts one each.
type Coin = [Vec<String>; 2];

/// How many records there are, and how many of them are coins.
const LINES: usize = 72;

/// Counts under the keys of the upper side; a coin turns over whenever it is read.
fn topology(world: &World, coins: &Arc<[Coin]>) -> Topology {
    let topology = Topology::new("coins");
    let read: Arc<[AtomicUsize]> = coins.iter().map(|_| AtomicUsize::new(0)).collect();
    let coins = coins.clone();
    let every = LINES / coins.len();
    let lines: Vec<Arc<str>> = (0..LINES).map(|n| n.to_string().into()).collect();
    topology
        .source(world.source("lines", &lines))
        .stage(move |lines| {
            let (coins, read) = (coins.clone(), read.clone());
            lines
                .flat_map(move |line: &str| {
                    let number: usize = line.parse().unwrap_or_default();
                    match coins.get(number / every).filter(|_| number.is_multiple_of(every)) {
                        Some(coin) => {
                            let times = read[number / every].fetch_add(1, Ordering::Relaxed);
                            coin[times % 2].clone()
                        }
                        None => vec![format!("plain {}", number % 7)],
                    }
                })
                .group_by(|key: String| key)
                .count()
        })
        .persist(world.table("counts").key("word").value("n"));
    topology
}

fn simulation(coins: Vec<Coin>, mode: Mode) -> Simulation {
    let coins: Arc<[Coin]> = coins.into();
    simulate(move |world| topology(world, &coins)).mode(mode)
}

fn canonical(key: &str) -> Vec<u8> {
    [&[2], key.as_bytes(), &[0]].concat()
}

fn shard_of(key: &str) -> u16 {
    Shard::of(hash64(&canonical(key)), SHARDS).0
}

/// The hash of the row that says 1 at a key.
fn row_hash(key: &str) -> u128 {
    let one = [&[3, 0x80][..], &[0; 6], &[1]].concat();
    Hash128::of(&[canonical(key), one].concat()).0
}

/// Keys of a coin's side that lie in a shard, one after the other.
fn keys(coin: usize, side: char, shard: u16) -> impl Iterator<Item = String> {
    (0..).map(move |n| format!("coin {coin} {side} {n}")).filter(move |key| shard_of(key) == shard)
}

/// Each coin falls under one key, and turned over under one of another shard.
pub(crate) fn moving(mode: Mode) -> Simulation {
    let coin = |coin: usize| {
        let key = |side, shard| keys(coin, side, shard % SHARDS).take(1).collect();
        [key('a', coin as u16), key('b', coin as u16 + 1)]
    };
    simulation((0..LINES).map(coin).collect(), mode)
}

/// Coins in pairs: each lies where the other one lies when it is turned over. If both turn over in one batch, its merged rows stay
/// as they were, though both records have moved.
pub(crate) fn swapping(mode: Mode) -> Simulation {
    let key = |coin: usize| keys(coin, 's', coin as u16 % SHARDS).take(1).collect::<Vec<_>>();
    simulation((0..LINES).map(|coin| [key(coin), key(coin ^ 1)]).collect(), mode)
}

/// Each coin falls under as many keys of every shard on both sides, and the hashes of the rows on one side come to the same by
/// exclusive or as those on the other.
pub(crate) fn cancelling(mode: Mode) -> Simulation {
    let of_shard = |coin: usize, shard: u16| {
        let pairs: Vec<(String, String)> = keys(coin, 'a', shard).zip(keys(coin, 'b', shard)).take(129).collect();
        let differences: Vec<u128> = pairs.iter().map(|(a, b)| row_hash(a) ^ row_hash(b)).collect();
        cancelled(&differences).into_iter().map(move |index| pairs[index].clone()).collect::<Vec<_>>()
    };
    let coin = |coin: usize| {
        let (a, b) = [0, 1].into_iter().flat_map(|shard| of_shard(coin, shard)).unzip();
        [a, b]
    };
    simulation((0..12).map(coin).collect(), mode)
}

/// Each coin falls under one key in every shard but the first, on both sides.
pub(crate) fn beside_the_first_shard(mode: Mode) -> Simulation {
    let coin =
        |coin: usize| ['a', 'b'].map(|side| (1..SHARDS).flat_map(|shard| keys(coin, side, shard).take(1)).collect());
    simulation((0..24).map(coin).collect(), mode)
}

/// Some of these that come to 0 by exclusive or: 129 numbers of 128 bits always have some.
fn cancelled(numbers: &[u128]) -> Vec<usize> {
    // By highest bit: a number with that bit, and which of the given ones it was made of.
    let mut made: BTreeMap<u32, (u128, Vec<bool>)> = BTreeMap::new();
    for (index, number) in numbers.iter().enumerate() {
        let (mut number, mut of) = (*number, vec![false; numbers.len()]);
        of[index] = true;
        while let Some((other, others)) = made.get(&number.leading_zeros()) {
            number ^= other;
            of.iter_mut().zip(others).for_each(|(of, other)| *of ^= other);
        }
        if number == 0 {
            return (0..of.len()).filter(|index| of[*index]).collect();
        }
        made.insert(number.leading_zeros(), (number, of));
    }
    Vec::new()
}

/// How often the table counts rows of either side, by coin.
fn by_coin(report: &Report) -> BTreeMap<&str, [Vec<i64>; 2]> {
    let mut sides: BTreeMap<&str, [Vec<i64>; 2]> = BTreeMap::new();
    for (key, value) in report.table("counts").into_iter().flatten() {
        let ([Cell::Text(key)], [Cell::BigInt(count)]) = (&key[..], &value[..]) else { continue };
        let mut words = key.split(' ').skip(1);
        if let (Some(coin), Some(side @ ("a" | "b"))) = (words.next(), words.next()) {
            sides.entry(coin).or_default()[usize::from(side == "b")].push(*count);
        }
    }
    sides
}

/// A coin of which both sides lie in the table, or one twice.
pub(crate) fn mixed(report: &Report) -> Option<String> {
    let wrong = |sides: &[Vec<i64>; 2]| match sides {
        [a, b] if !a.is_empty() && !b.is_empty() => {
            Some(format!("{} rows of one side and {} of the other", a.len(), b.len()))
        }
        sides => {
            sides.iter().flatten().find(|count| **count != 1).map(|count| format!("a row was counted {count} times"))
        }
    };
    by_coin(report).iter().find_map(|(coin, sides)| Some(format!("coin {coin}: {}", wrong(sides)?)))
}

/// How many coins lie on either side.
pub(crate) fn sides(report: &Report) -> [usize; 2] {
    let coins = by_coin(report);
    [0, 1].map(|side| coins.values().filter(|sides| !sides[side].is_empty()).count())
}

/// How many records the table counts.
pub(crate) fn total(report: &Report) -> i64 {
    let count = |value: &tine_sim::Cells| match value[..] {
        [Cell::BigInt(count)] => count,
        _ => 0,
    };
    report.table("counts").map_or(0, |table| table.values().map(count).sum())
}
