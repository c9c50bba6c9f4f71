//! Shell scripts as programs: lines in their order, signals where they were aimed, ends that are seen.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Running {
    Program::at("sh").args(["-c", script]).start().unwrap()
}

#[test]
fn lines_are_found_in_order_and_once() {
    let mut program = shell("echo one; echo two >&2; echo three; echo one more");
    assert_eq!(program.line("one", DEADLINE).unwrap(), "one");
    assert_eq!(program.line("one", DEADLINE).unwrap(), "one more");
    assert!(program.wait(DEADLINE).unwrap().success());
    assert_eq!(program.lines_of(Stream::Err), ["two"]);
    assert_eq!(program.lines_of(Stream::Out).len(), 3);
}

#[test]
fn a_line_that_never_comes_fails_when_the_program_ends() {
    let start = Instant::now();
    let error = shell("echo here").line("there", Duration::from_secs(60)).unwrap_err();
    assert!(format!("{error:#}").contains("here"));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_paused_program_prints_nothing_until_it_is_resumed() {
    let mut program = shell("while :; do echo tick; sleep 0.01; done");
    program.line("tick", DEADLINE).unwrap();
    program.pause().unwrap();
    while program.line("tick", Duration::from_millis(50)).is_ok() {}
    assert!(program.line("tick", Duration::from_millis(200)).is_err());
    program.resume().unwrap();
    program.line("tick", DEADLINE).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&program.kill().unwrap()), Some(9));
}

#[test]
fn a_program_in_step_dies_before_its_next_line() {
    for _ in 0..20 {
        let script = "n=0; while :; do n=$((n+1)); echo line $n >&2; done";
        let mut program = Program::at("sh").args(["-c", script]).in_step().start().unwrap();
        program.signal_when(Signal::SIGKILL, |line| line == "line 50");
        let status = program.wait(DEADLINE).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!(program.lines().last().unwrap(), "line 50");
    }
}

#[test]
fn a_signal_to_an_ended_program_is_refused() {
    let mut program = shell("exit 3");
    assert_eq!(program.wait(DEADLINE).unwrap().code(), Some(3));
    assert!(program.terminate().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_test_can_wait_for_a_line() {
    let mut program = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    program.line_async("up", DEADLINE).await.unwrap();
    program.terminate().unwrap();
    program.line_async("bye", DEADLINE).await.unwrap();
}
