//! The listener's connections, limited in number and time, so that nobody who may connect to it can take the daemon's
//! descriptors or keep others from `/healthz`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// The smallest that hyper takes. Requests here have short heads and no bodies.
const HEAD_BYTES: usize = 8192;

/// For want of descriptors, or of whatever else `accept` needs, it is tried again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open at once. A further one closes the oldest that has not asked anything, or else the oldest.
    pub connections: usize,
    /// From a connection's start to the end of its request's head.
    pub head: Duration,
    /// From there to the end of the answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 32, head: Duration::from_secs(10), answer: Duration::from_secs(60) }
    }
}

/// Answers one request for each connection until `stop` is cancelled, and then those that are under way. It ends when they
/// have been answered or `limits` are reached.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while tasks.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        open.make_room(limits.connections);
        let asked = Arc::new(AtomicBool::new(false));
        let task = tasks.spawn(answer(stream, router.clone(), limits, asked.clone()));
        open.0.push_back(Connection { asked, task });
    }
    drop(listener);
    // Those that have not asked anything are not waited for.
    open.0.iter().filter(|connection| !connection.asked.load(Relaxed)).for_each(|idle| idle.task.abort());
    while tasks.join_next().await.is_some() {}
}

struct Connection {
    /// Whether the head of its request is there.
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Connections that are open, the oldest first.
#[derive(Default)]
struct Open(VecDeque<Connection>);

impl Open {
    /// Closes as many as are needed for one more below `limit`.
    fn make_room(&mut self, limit: usize) {
        self.0.retain(|connection| !connection.task.is_finished());
        while self.0.len() >= limit.max(1) {
            let idle = self.0.iter().position(|connection| !connection.asked.load(Relaxed));
            let Some(closed) = self.0.remove(idle.unwrap_or(0)) else { return };
            closed.task.abort();
        }
    }
}

async fn answer(stream: TcpStream, router: Router, limits: Limits, asked: Arc<AtomicBool>) {
    let router = TowerToHyperService::new(router);
    let pages = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Relaxed);
        let answer = router.call(request);
        async move { answer.await as Result<Response<axum::body::Body>, _> }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // Whoever scrapes comes every few seconds, and an open connection that says nothing is one that another may need.
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), pages);
    // How it ended is the client's matter.
    let _ = tokio::time::timeout(limits.head + limits.answer, connection).await;
}
