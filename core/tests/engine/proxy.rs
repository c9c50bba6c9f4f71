//! The network in front of one worker: it can be cut, refuse new connections, and stand still.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const PAUSE: Duration = Duration::from_millis(2);

/// Peers reach the worker through it. Dropped, it is gone with all connections.
pub(crate) struct Proxy {
    /// Where the worker listens.
    pub(crate) target: String,
    /// Where its peers reach it.
    pub(crate) address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    refuses: AtomicBool,
    stands_still: AtomicBool,
    closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn new() -> Proxy {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (target, state) = (free.to_string(), Arc::<State>::default());
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        port.set_nonblocking(true).unwrap();
        let (to, shared) = (target.clone(), Arc::clone(&state));
        thread::spawn(move || serve(&port, &to, &shared));
        Proxy { target, address, state }
    }

    /// Breaks all connections with the worker that its peers have opened.
    pub(crate) fn cut(&self) {
        self.state.cut();
    }

    /// Lets nobody in, as long as that is so.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
        if refuses {
            self.cut();
        }
    }

    /// Carries nothing, as long as that is so.
    pub(crate) fn stand_still(&self, stands: bool) {
        self.state.stands_still.store(stands, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.cut();
    }
}

impl State {
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(port: &TcpListener, target: &str, state: &Arc<State>) {
    while !state.closed.load(Ordering::SeqCst) {
        let Ok((near, _)) = port.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        if state.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(far) = TcpStream::connect(target) else { continue };
        near.set_nonblocking(false).unwrap();
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (from, to, state) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(state));
            thread::spawn(move || carry(from, to, &state));
        }
        state.open.lock().unwrap().extend([near, far]);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while state.stands_still.load(Ordering::SeqCst) && !state.closed.load(Ordering::SeqCst) {
            thread::sleep(PAUSE);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
