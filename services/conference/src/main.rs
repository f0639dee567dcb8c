//! `plenary`: reads its command line and settings, runs the node until a signal, and says by its exit code how it went.
//!
//! Exit codes: 0 done; 1 could not run; 2 the command line or the configuration is wrong; 3 a second signal came before
//! everybody had left.

use std::{
    fmt::Display,
    io::Write,
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use plenary::{
    cli::{Cli, Command, RecordingsCommand, RecordingsError, SettingsArgs, TokenCommand, TokenCreate},
    config::{Listen, Settings},
    events::{ConfigLoaded, DevKeysInUse, MeetPageOpened, NodeStopped, ScrapePageOpened},
    node::Node,
    telemetry::{self, Telemetry},
    tls,
};
use plenary_protocol::token::Keys;
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    tls::install_provider();
    let (settings, command) = Cli::parse().split();
    match command {
        Command::Serve => serve(&settings),
        Command::CheckConfig { print } => check_config(&settings, print),
        Command::Token { command: TokenCommand::Create(create) } => create_token(&settings, &create),
        Command::Recordings { command } => recordings(&settings, &command),
    }
}

fn serve(args: &SettingsArgs) -> ExitCode {
    let settings = match Settings::load(&args.sources()) {
        Ok(settings) => settings,
        Err(error) => return wrong(&error),
    };
    let telemetry = match Telemetry::start(&settings.log) {
        Ok(telemetry) => telemetry,
        Err(error) => return wrong(&error),
    };
    ConfigLoaded { source: &settings.source }.emit();
    if settings.keys.is_development() {
        DevKeysInUse { http: settings.http.bind }.emit();
    }
    let outcome = actix::System::new().block_on(run(settings, &telemetry));
    // Outside the system: the exporters may wait for an endpoint.
    telemetry.shutdown();
    match outcome {
        Ok(Ending::Graceful) => ExitCode::SUCCESS,
        Ok(Ending::AtOnce) => ExitCode::from(3),
        Err(error) => failed(&format!("{error:#}")),
    }
}

enum Ending {
    Graceful,
    AtOnce,
}

async fn run(settings: Settings, telemetry: &Telemetry) -> anyhow::Result<Ending> {
    let mut signals = Signals::listen()?;
    let scrape = match settings.metrics.bind {
        Listen::Off => None,
        Listen::At(bind) => {
            let bound = telemetry::scrape_server(bind, telemetry.registry());
            let (address, server) = bound
                .map_err(|error| anyhow::anyhow!("metrics.bind: {bind}: {error}; choose another address, or off"))?;
            ScrapePageOpened { address }.emit();
            let handle = server.handle();
            actix::spawn(server);
            Some(handle)
        }
    };
    let tls = settings.http.tls.is_some();
    let node = Node::start(settings).await?;
    MeetPageOpened { http: node.http, tls }.emit();
    let (stopping, ending) = loop {
        if let Asked::Reload = signals.next().await {
            node.reload_keys();
            continue;
        }
        let stopping = Instant::now();
        let is_empty = tokio::select! {
            is_empty = node.drain() => is_empty,
            () = signals.end() => break (stopping, Ending::AtOnce),
        };
        // Otherwise somebody wants the node to go on.
        if is_empty {
            let ending = tokio::select! {
                () = node.stop() => Ending::Graceful,
                () = signals.end() => Ending::AtOnce,
            };
            break (stopping, ending);
        }
    };
    if let Some(scrape) = scrape {
        scrape.stop(false).await;
    }
    NodeStopped { after: stopping.elapsed() }.emit();
    Ok(ending)
}

/// SIGTERM and SIGINT end it, SIGHUP has it read its keys again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

enum Asked {
    End,
    Reload,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn end(&mut self) {
        while let Asked::Reload = self.next().await {}
    }
}

fn check_config(args: &SettingsArgs, print: bool) -> ExitCode {
    match Settings::load(&args.sources()) {
        Ok(settings) if print => say(&settings.print()),
        Ok(settings) => {
            let explained = [settings.explain_codecs(), settings.explain_keys()].concat();
            say(&format!("the configuration is sound ({})\n{explained}", settings.source))
        }
        Err(error) => wrong(&error),
    }
}

fn create_token(args: &SettingsArgs, create: &TokenCreate) -> ExitCode {
    let configured = if create.needs_configured_keys() {
        Settings::load(&args.sources()).map(|settings| settings.keys)
    } else {
        Ok(Keys::new())
    };
    let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match configured.map(|keys| create.create(&keys, now_unix_s)) {
        Ok(Ok(token)) => say(&format!("{token}\n")),
        Ok(Err(error)) => wrong(&error),
        Err(error) => wrong(&error),
    }
}

fn recordings(args: &SettingsArgs, command: &RecordingsCommand) -> ExitCode {
    // With a directory no configuration is needed, sound or not.
    let configured = match command.directory() {
        Some(_) => None,
        None => match Settings::load(&args.sources()) {
            Ok(settings) => settings.recording.directory,
            Err(error) => return wrong(&error),
        },
    };
    match command.run(configured.as_deref()) {
        Ok(told) if told.is_well => say(&told.text),
        Ok(told) => {
            say(&told.text);
            ExitCode::FAILURE
        }
        Err(error @ RecordingsError::NoDirectory) => wrong(&error),
        Err(error) => failed(&error),
    }
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn wrong(error: &dyn Display) -> ExitCode {
    complain(error);
    ExitCode::from(2)
}

fn failed(error: &dyn Display) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

/// Where standard error is gone too, the exit code has to do.
fn complain(error: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "plenary: {error}");
}
