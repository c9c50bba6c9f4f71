//! Figures for Prometheus: as text (OpenMetrics), and on a port if somebody asks for one.
//!
//! Off by default. [`serve`] listens on loopback only; [`serve_openly`] on any address, and says so in its name: whoever can reach
//! the port can read component names and figures, and nothing else.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tiny_http::{Header, Method, Response, Server};

use super::{Latency, TaskFigures};
use crate::engine::Running;

/// How often the server looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the response says it is.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The quantiles of latencies that are shown.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Why figures cannot be served.
///
/// ```
/// # use tine_core::topology::Topology;
/// use tine_core::metrics::{ServeError, serve};
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
/// # let topology = Topology::new("numbers");
/// # let numbers = topology.spout("numbers", || Items(0..10u64));
/// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
/// let running = topology.start()?;
/// let refused = serve(&running, "0.0.0.0:9100".parse()?);
/// assert!(matches!(refused, Err(ServeError::NotLoopback(_))), "the whole network could read them");
/// # running.kill()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Everybody could read the figures.
    #[error("{0} can be reached from other machines: use 127.0.0.1, or serve_openly if that is meant")]
    NotLoopback(SocketAddr),
    /// The system refuses.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
}

/// A port that answers `GET /metrics`; closed when this is dropped.
///
/// ```no_run
/// # fn watch(running: tine_core::engine::Running) -> Result<(), Box<dyn std::error::Error>> {
/// let server = tine_core::metrics::serve(&running, "127.0.0.1:0".parse()?)?; // a free port
/// println!("curl http://{}/metrics", server.address());
/// running.wait()?;
/// drop(server); // closes the port
/// # Ok(())
/// # }
/// ```
pub struct MetricsServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Where it listens: the port that the system chose, if it was asked for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetricsServer({})", self.address)
    }
}

/// Serves the figures of a running topology on a loopback address.
///
/// ```no_run
/// # fn watch(running: tine_core::engine::Running) -> Result<(), Box<dyn std::error::Error>> {
/// let _server = tine_core::metrics::serve(&running, "127.0.0.1:9100".parse()?)?;
/// running.wait()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the address is not a loopback one, or the system refuses it.
pub fn serve(running: &Running, address: SocketAddr) -> Result<MetricsServer, ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    serve_openly(running, address)
}

/// Serves the figures of a running topology on any address, without asking who reads them.
///
/// ```no_run
/// # fn watch(running: tine_core::engine::Running) -> Result<(), Box<dyn std::error::Error>> {
/// let _server = tine_core::metrics::serve_openly(&running, "0.0.0.0:9100".parse()?)?; // for Prometheus elsewhere
/// running.wait()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the system refuses the address.
pub fn serve_openly(running: &Running, address: SocketAddr) -> Result<MetricsServer, ServeError> {
    let refused = |reason: String| ServeError::Listen { address, reason };
    let server = Server::http(address).map_err(|error| refused(error.to_string()))?;
    let listening = server.server_addr().to_ip().unwrap_or(address);
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), running.observer());
    let told = Arc::clone(&stop);
    let answer = move || {
        while !told.load(Ordering::Acquire) {
            let Ok(Some(request)) = server.recv_timeout(LOOK_EVERY) else { continue };
            let found = *request.method() == Method::Get && request.url() == "/metrics";
            // A reader that went away is no error of ours.
            let _ = match found {
                false => request.respond(Response::from_string("only GET /metrics\n").with_status_code(404)),
                true => {
                    let (name, tasks) = stopped();
                    let response = Response::from_string(to_text(&name, &tasks));
                    let header = Header::from_bytes("Content-Type", CONTENT_TYPE);
                    request.respond(header.into_iter().fold(response, Response::with_header))
                }
            };
        }
    };
    let thread = thread::Builder::new().name("tine-metrics".into()).spawn(answer);
    let thread = thread.map_err(|error| refused(error.to_string()))?;
    Ok(MetricsServer { address: listening, stop, thread: Some(thread) })
}

type Labels = Vec<(&'static str, String)>;

/// The figures as OpenMetrics text, which Prometheus reads.
///
/// ```
/// # use tine_core::{metrics::to_text, topology::Topology};
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
/// # let topology = Topology::new("numbers");
/// # let numbers = topology.spout("numbers", || Items(0..10u64));
/// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
/// let summary = topology.run()?;
/// let text = to_text("numbers", &summary.tasks);
/// assert!(text.contains(r#"tine_core_acked_total{topology="numbers",component="numbers",task="0"} 10"#), "{text}");
/// assert!(text.ends_with("# EOF\n"));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub fn to_text(topology: &str, tasks: &[TaskFigures]) -> String {
    let mut registry = Registry::with_prefix("tine_core");
    let mut counter = |name: &str, help: &str| {
        let family = Family::<Labels, Counter>::default();
        registry.register(name, help, family.clone());
        family
    };
    let emitted = counter("emitted", "Tuples emitted, by output stream");
    let transferred = counter("transferred", "Tuples handed over to tasks, by output stream");
    let executed = counter("executed", "Tuples executed by bolts");
    let acked = counter("acked", "Tuples acked by bolts, trees completed of spouts");
    let failed = counter("failed", "Tuples failed by bolts, trees failed or timed out of spouts");
    let depth = Family::<Labels, Gauge>::default();
    registry.register("depth", "Tuples waiting in front of bolts, trees under way of spouts", depth.clone());
    let mut latency = |name: &str, help: &str| {
        let family = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        registry.register(name, help, family.clone());
        family
    };
    let execute = latency("execute_seconds", "How long execute takes, by quantile, of a sample");
    let process = latency("process_seconds", "From execution to ack, or from emission to completion, by quantile");
    for task in tasks {
        let labels = || {
            vec![
                ("topology", topology.to_owned()),
                ("component", task.component.clone()),
                ("task", task.task.0.to_string()),
            ]
        };
        let with = |name: &'static str, value: String| labels().into_iter().chain([(name, value)]).collect::<Labels>();
        for stream in &task.streams {
            emitted.get_or_create(&with("stream", stream.name.clone())).inc_by(stream.emitted);
            transferred.get_or_create(&with("stream", stream.name.clone())).inc_by(stream.transferred);
        }
        executed.get_or_create(&labels()).inc_by(task.executed);
        acked.get_or_create(&labels()).inc_by(task.acked);
        failed.get_or_create(&labels()).inc_by(task.failed);
        depth.get_or_create(&labels()).set(i64::try_from(task.depth).unwrap_or(i64::MAX));
        let quantiles = |family: &Family<Labels, Gauge<f64, _>>, latency: &Latency| {
            for quantile in QUANTILES.iter().filter(|_| latency.count() > 0) {
                family.get_or_create(&with("quantile", quantile.to_string())).set(latency.at(*quantile).as_secs_f64());
            }
        };
        quantiles(&execute, &task.execute);
        quantiles(&process, &task.process);
    }
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a String does not fail");
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::{
        component::{Emit, Next, Spout, SpoutCollector},
        failure::Failure,
        topology::Topology,
    };

    struct Ten(u32);

    impl Spout for Ten {
        type Out = u32;
        type Id = ();

        fn next(&mut self, out: &mut SpoutCollector<u32, ()>) -> Result<Next, Failure> {
            if self.0 == 10 {
                return Ok(Next::Idle);
            }
            self.0 += 1;
            out.emit(self.0, ());
            Ok(Next::More)
        }
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn figures_are_served_on_loopback_and_only_there_unless_asked() {
        let topology = Topology::new("served");
        let ten = topology.spout("ten", || Ten(0));
        topology.each("sink", |_: u32, _: &mut Emit<'_, ()>| Ok(())).shuffle(&ten);
        let running = topology.start().unwrap();
        let refused = serve(&running, "0.0.0.0:0".parse().unwrap());
        assert!(matches!(refused, Err(ServeError::NotLoopback(_))));
        let server = serve(&running, "127.0.0.1:0".parse().unwrap()).unwrap();
        let expected = "tine_core_acked_total{topology=\"served\",component=\"ten\",task=\"0\"} 10\n";
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !get(server.address(), "/metrics").contains(expected) {
            assert!(std::time::Instant::now() < deadline, "{}", get(server.address(), "/metrics"));
        }
        assert!(get(server.address(), "/").starts_with("HTTP/1.1 404"));
        let address = server.address();
        drop(server);
        // The thread that accepts ends a moment after the server.
        while TcpStream::connect(address).is_ok() {
            assert!(std::time::Instant::now() < deadline, "the port is closed with the server");
        }
        running.stop().unwrap();
    }
}
