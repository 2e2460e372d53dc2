//! `bliss-service run`: runs every part until a signal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bliss_core::key::KeySecret;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{DEFAULT_DIRECTORY, Keep, Unfit};
use crate::config::Config;
use crate::crawlers::Claims;
use crate::decisions::{FILE_NAME, Watch};
use crate::expiry::Expiry;
use crate::origin::{self, Context, OriginKind};
use crate::policy::task::{self, Loaded};
use crate::refusal::Refusal;
use crate::state::State;
use crate::{admin, drift, model_files, policy, publish};

/// How long shutdown may take: a publication under way is finished within it, or abandoned.
const END: Duration = Duration::from_secs(5);
/// How long to wait before an origin that failed by itself is restarted.
const RESTART: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start: the directory cannot be published to, or the admin listener's address is not available.
pub fn run(loaded: Loaded) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let on_signal = stop.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("{name}: shutting down; what is published stays");
            on_signal.cancel();
        });
        ignore_other_signals()?;
        let reload = reload_on_signal()?;
        // Until it is listened to, it must not end the process.
        let _early = signal(SignalKind::user_defined2())?;
        serve(loaded, reload, stop).await
    });
    // A read that hangs, for instance on a dead network file system, is abandoned.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// SIGHUP asks for the policies of the configuration to be read again.
fn reload_on_signal() -> std::io::Result<Arc<Notify>> {
    let mut signal = signal(SignalKind::hangup())?;
    let reload = Arc::new(Notify::new());
    let on_signal = reload.clone();
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            on_signal.notify_one();
        }
    });
    Ok(reload)
}

/// Signals that other daemons reopen their log on, and that would end this one: it only says that it got them.
fn ignore_other_signals() -> std::io::Result<()> {
    let mut signal = signal(SignalKind::user_defined1())?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            tracing::warn!("SIGUSR1 is ignored: the log goes to standard error, there is no file to reopen");
        }
    });
    Ok(())
}

/// Runs the daemon until `stop` is cancelled.
///
/// # Errors
/// As for [`run`].
pub async fn serve(loaded: Loaded, reload: Arc<Notify>, stop: CancellationToken) -> anyhow::Result<()> {
    let config = loaded.config.clone();
    let state = Arc::new(State::new(&config));
    let keep = keep(&config);
    let mut publishing = config.publish.clone();
    publishing.secret = keep.as_ref().and_then(|keep| kept_secret(keep));
    // The files first: a second daemon must fail on them, not on the port.
    let opened = publish::open(&config.directory, &publishing, &config.schema, &state)?;
    let secret = opened.secret;
    if let Some(keep) = &keep
        && let Err(error) = keep.keep_secret(&secret)
    {
        let shown = keep.directory().display();
        tracing::warn!(
            "checkpoint.directory {shown}: the key secret cannot be written, so that a reboot forgets what is counted: {error}"
        );
    }
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("admin.listen: {} cannot listen; is another process there?", config.listen)
    })?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        tracing::warn!(
            "admin.listen: {address} is reachable from other hosts; /status and /metrics are open"
        );
    }
    state.metrics.drift.configure(&config, keep.as_deref());
    let (publisher, mut published) =
        publish::start(opened, config.publish_interval, Expiry::new(&config), state.clone())?;
    tracing::info!(
        directory = %config.directory.display(),
        admin = %address,
        dimensions = config.schema.dimensions.len(),
        origins = config.origins.len(),
        models = config.models.len(),
        "publishing"
    );

    checkpoint_on_signal(keep.clone())?;
    let decisions = decisions(&config, keep.as_deref(), &state);
    let claims = Claims::of(&config, &state);
    let mut tasks = JoinSet::new();
    for index in 0..config.origins.len() {
        let context = Context {
            index,
            state: state.clone(),
            publisher: publisher.clone(),
            keep: keep.clone(),
            decisions: decisions.clone(),
            claims: claims.clone(),
            stop: stop.clone(),
        };
        let config = config.clone();
        tasks.spawn(async move { keep_running(context, config, secret).await });
    }
    let (in_force, of_policies) = watch::channel(config.clone());
    if config.uses_default_model {
        tasks.spawn(model_files::publish_default(state.clone(), publisher.clone(), stop.clone()));
    }
    if !config.models.is_empty() {
        let model_files =
            model_files::run(config.clone(), of_policies, state.clone(), publisher.clone(), stop.clone());
        tasks.spawn(model_files);
    }
    let overrides = policy::control::folder(config.checkpoint.directory.as_deref(), &config.directory);
    if let Err(error) = overrides.make() {
        tracing::error!("exceptions cannot be kept: {error}");
    }
    tasks.spawn(task::run(task::Options {
        loaded,
        folder: overrides,
        reload,
        in_force,
        state: state.clone(),
        publisher: publisher.clone(),
        stop: stop.clone(),
    }));
    tasks.spawn(drift::run(config.clone(), state.clone(), stop.clone()));
    let pages = admin::router(state, &config.admin_hosts);
    let admin = tokio::spawn(admin::serve(listener, pages, admin::Limits::default(), stop.clone()));

    let ended_alone = tokio::select! {
        biased;
        () = stop.cancelled() => false,
        _ = &mut published => true,
    };
    if ended_alone {
        // Its panic is on standard error. The supervisor restarts the daemon.
        stop.cancel();
        admin.abort();
        anyhow::bail!("the publishing thread panicked; what is published stays");
    }
    // The thread ends with the publisher's last handle.
    drop(publisher);
    let end = async {
        while tasks.join_next().await.is_some() {}
        let _ = published.await;
    };
    if tokio::time::timeout(END, end).await.is_err() {
        tracing::warn!("a publication under way was abandoned; readers continue with the previous one");
    }
    admin.abort();
    tracing::info!("stopped");
    Ok(())
}

/// The folder for what a restart must not lose, if anything is: one that cannot be used is said, and the daemon goes on.
fn keep(config: &Config) -> Option<Arc<Keep>> {
    let is_followed = |kind: &OriginKind| matches!(kind, OriginKind::AccessLog(log) if log.is_followed());
    let tells_drift = config.publish.sample_one_in > 0 && config.drift.state.is_none();
    let follows = config.origins.iter().any(|origin| is_followed(&origin.kind));
    let lost = match (follows, tells_drift) {
        (true, _) => "what is counted is not kept over a restart",
        (false, true) => "what is known of drift is not kept over a reboot",
        (false, false) => return None,
    };
    match Keep::open(&config.checkpoint) {
        Ok(Some(keep)) => {
            tracing::info!(directory = %keep.directory().display(), "what is counted is kept over a restart and a reboot");
            Some(Arc::new(keep))
        }
        Ok(None) => {
            tracing::info!(
                "{lost}: make {DEFAULT_DIRECTORY} (systemd: StateDirectory=bliss), or \
                 name another `checkpoint.directory`"
            );
            None
        }
        Err(error) => {
            tracing::error!("{lost}: checkpoint.directory {error}");
            None
        }
    }
}

/// What takes note of decisions; without it the daemon goes on.
fn decisions(config: &Config, keep: Option<&Keep>, state: &State) -> Option<Watch> {
    let options = &config.decisions;
    let file = options.file.clone().or_else(|| Some(keep?.directory().join(FILE_NAME)))?;
    let is_followed = |kind: &OriginKind| matches!(kind, OriginKind::AccessLog(log) if log.is_followed());
    if options.max_per_second == 0 || !config.origins.iter().any(|origin| is_followed(&origin.kind)) {
        return None;
    }
    let counts = state.metrics.decisions.clone();
    match Watch::start(options, file, config.directory.clone(), counts) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::error!("decisions are not written: their thread cannot be started: {error}");
            None
        }
    }
}

fn kept_secret(keep: &Keep) -> Option<KeySecret> {
    match keep.secret() {
        Ok(secret) => Some(secret),
        Err(Unfit::Absent) => None,
        Err(error) => {
            let shown = keep.directory().display();
            tracing::warn!("checkpoint.directory {shown}: the key secret that was kept is not used: {error}");
            None
        }
    }
}

/// SIGUSR2 asks for checkpoints.
fn checkpoint_on_signal(keep: Option<Arc<Keep>>) -> std::io::Result<()> {
    let mut signal = signal(SignalKind::user_defined2())?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            match &keep {
                Some(keep) => {
                    tracing::info!("SIGUSR2: checkpoints are written");
                    keep.ask();
                }
                None => tracing::warn!("SIGUSR2 is ignored: nothing is kept over a restart"),
            }
        }
    });
    Ok(())
}

/// Runs an origin. One that fails by itself is restarted, and never takes the others with it.
async fn keep_running(context: Context, config: Arc<Config>, secret: KeySecret) {
    while !context.stop.is_cancelled() {
        let (task_context, task_config) = (context.clone(), config.clone());
        let task = tokio::spawn(async move {
            match task_config.target(task_context.index, &secret) {
                Some(target) => origin::run(task_context, target).await,
                None => Ok(()),
            }
        });
        let failure = match task.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        let message = format!("the origin failed and restarts every {} s: {failure}", RESTART.as_secs());
        context.state.refused(context.index, &Refusal::unavailable(message));
        tokio::select! {
            () = context.stop.cancelled() => (),
            () = tokio::time::sleep(RESTART) => (),
        }
    }
}
