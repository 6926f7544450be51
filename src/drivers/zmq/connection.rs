//! A connection to an address, begun anew however it ended.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::lookup::Lookup;
use crate::transport::Wake;

use super::backoff::Backoff;
use super::calls::patiently;
use super::endpoint::{Endpoint, Role};
use super::line::{Kind, Line};
use super::monitor::Change;
use super::settings::Settings;
use super::{path_lock, room};

/// An address that is bound, or kept connected. The owner calls [`Connection::news`] when a descriptor of the line is
/// readable, and [`Connection::tend`] when the [`Connection::deadline`] has passed or the wake was called.
pub(super) struct Connection {
    endpoint: Endpoint,
    kind: Kind,
    options: Settings,
    /// Called when a name was looked up.
    wake: Arc<dyn Wake>,
    stage: Stage,
    line: Option<Line>,
    /// The addresses of the name still to be tried in this round, as libzmq takes them.
    left: VecDeque<String>,
    /// How long an address may take to answer before the next one is tried; the last one of a round has longer.
    patience: Duration,
    backoff: Backoff,
    /// For a bound end: when to refuse the peers that still wait.
    turn_away_at: Option<Instant>,
    /// When a peer was last refused.
    crowded_at: Option<Instant>,
    /// For an end bound to a Unix socket, or with keys: when to check the socket's file, or the list of clients.
    look_at: Option<Instant>,
    /// How often the other end closed the connection before its greeting.
    hang_ups: u32,
    /// Set if this process has no right to connect.
    denied: Option<Error>,
    /// The errors already returned; each is returned once, until a connection has lasted, or a socket is bound again.
    told: Vec<String>,
}

enum Stage {
    /// Bound, or of a kind for which libzmq has no events.
    Standing,
    /// Receiving from a multicast group, from which nothing has come yet.
    Joined,
    /// Waiting; begun anew at this time.
    Resting(Instant),
    LookingUp(Lookup),
    /// Connecting; given up at this time.
    Trying(Instant),
    /// Connected; the other end has to greet by this time.
    Opened(Instant),
    /// The connection speaks ZeroMQ, since this time.
    Greeted(Instant),
}

/// News of a connection; the number is its file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Opened(u32),
    /// An opened connection speaks ZeroMQ.
    Greeted,
    /// The flag says whether the connection may have greeted.
    Closed(u32, bool),
}

/// How long connecting may take: at first, while there are other addresses to try, and without others.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the other end may take to greet: while there are other addresses to try, and without others.
const SHORT_GREETING: Duration = Duration::from_secs(3);
const GREETING: Duration = Duration::from_secs(30);

/// libzmq reports the reason for the end of a connection a moment after the end.
const LEAST_REST: Duration = Duration::from_millis(5);

/// Interval between attempts to refuse a peer.
const TURN_AWAY: Duration = Duration::from_millis(50);

/// After this time without one, a refused peer is reported again.
const QUIET: Duration = Duration::from_secs(60);

/// How often a Unix socket's file is checked, since cleaning jobs may remove it, and the list of clients.
const LOOK: Duration = Duration::from_secs(1);

impl Connection {
    /// Opens the connection. Returns an error for a fault that shows at once.
    pub(super) fn open(endpoint: Endpoint, kind: Kind, options: &Settings, wake: Arc<dyn Wake>) -> Result<Connection> {
        let now = Instant::now();
        let mut connection = Connection {
            endpoint,
            kind,
            options: options.clone(),
            wake,
            stage: Stage::Resting(now),
            line: None,
            left: VecDeque::new(),
            patience: FIRST_PATIENCE,
            backoff: Backoff::new(options.reconnect_interval, options.reconnect_max),
            turn_away_at: None,
            crowded_at: None,
            look_at: None,
            hang_ups: 0,
            denied: None,
            told: Vec::new(),
        };
        match connection.tend(now) {
            None => Ok(connection),
            Some(e) => Err(e),
        }
    }

    /// Does what is due. Returns an error that was not returned before. The line may be replaced.
    pub(super) fn tend(&mut self, now: Instant) -> Option<Error> {
        let done = match self.stage {
            Stage::Resting(until) if until <= now => {
                let verdict = self.verdict().or(self.denied.take());
                self.begin(now).and(verdict.map_or(Ok(()), Err))
            }
            Stage::LookingUp(_) => self.looked_up(now),
            Stage::Trying(until) if until <= now => self.try_next(now),
            Stage::Opened(until) if until <= now => {
                let silent = format!("{} accepts connections, but sends no ZeroMQ greeting", self.endpoint);
                self.try_next(now).and(Err(Error::new(ErrorKind::Malformed, silent)))
            }
            Stage::Standing => self.keep(now),
            _ => Ok(()),
        };
        self.turn_away(now);
        let is_crowded = self.line.as_mut().is_some_and(Line::take_crowded);
        let crowded = is_crowded.then(|| room::crowded(self.address().unwrap_or(self.endpoint.uri())));
        if let Some(crowded) = &crowded
            && self.crowded_at.replace(now).is_none_or(|before| now - before > QUIET)
        {
            // Another crowd.
            let text = crowded.to_string();
            self.told.retain(|told| *told != text);
        }
        let error = done.err().or(crowded)?;
        let text = error.to_string();
        let is_news = !self.told.contains(&text);
        if is_news {
            self.told.push(text);
        }
        is_news.then_some(error)
    }

    /// Checks whether the Unix socket's file still exists, and the list of clients, if the check is due.
    fn keep(&mut self, now: Instant) -> Result<()> {
        if self.look_at.is_some_and(|at| at > now) && !self.line().is_some_and(Line::is_cutting) {
            return Ok(());
        }
        let line = self.line.as_mut().filter(|line| line.needs_looks());
        self.look_at = line.is_some().then(|| now + LOOK);
        if line.map_or(Ok(false), |line| line.keep(&self.endpoint))? {
            // The next outage is another one.
            self.told.clear();
        }
        Ok(())
    }

    /// Closes connections accepted when there was no room, repeatedly until that succeeds.
    fn turn_away(&mut self, now: Instant) {
        let busy = self.line.as_mut().filter(|line| line.is_busy());
        self.turn_away_at = busy.and_then(|line| {
            line.turn_away();
            line.is_busy().then(|| now + TURN_AWAY)
        });
    }

    /// True if [`Connection::tend`] may have something to do.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_urgent = self.line().is_some_and(|line| line.is_crowded() || line.is_cutting());
        is_urgent || matches!(self.stage, Stage::LookingUp(_)) || self.deadline().is_some_and(|at| at <= now)
    }

    /// The next time at which [`Connection::tend`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Resting(at) | Stage::Trying(at) | Stage::Opened(at) => Some(at),
            Stage::Standing => [self.turn_away_at, self.look_at].into_iter().flatten().min(),
            Stage::Joined | Stage::LookingUp(_) | Stage::Greeted(_) => None,
        }
    }

    /// The next news, if any.
    pub(super) fn news(&mut self, now: Instant) -> Option<News> {
        loop {
            let line = self.line.as_mut()?;
            let news = match line.next()? {
                Change::Opened(fd, _) => News::Opened(fd),
                Change::Greeted => News::Greeted,
                Change::Closed(fd) => match line.may_have_greeted(fd) {
                    Some(greeted) => News::Closed(fd, greeted),
                    None => continue,
                },
                Change::Retried if matches!(self.stage, Stage::Trying(_)) => {
                    self.denied = self.endpoint.path().and_then(path_lock::denied);
                    self.rest(now);
                    continue;
                }
                Change::Failed(_) | Change::Retried | Change::Unbound => continue,
            };
            if self.connects() {
                self.follow(news, now);
            }
            return Some(news);
        }
    }

    fn follow(&mut self, news: News, now: Instant) {
        match news {
            News::Opened(_) => {
                let greeting = if self.left.is_empty() { GREETING } else { SHORT_GREETING };
                self.stage = Stage::Opened(now + greeting);
            }
            News::Greeted => self.greeted(now),
            News::Closed(..) => {
                if let Stage::Greeted(since) = self.stage {
                    // The name may stand for another host by now.
                    self.left.clear();
                    if self.backoff.lasted(now.saturating_duration_since(since)) {
                        self.told.clear();
                    }
                }
                self.rest(now);
            }
        }
    }

    fn greeted(&mut self, now: Instant) {
        self.stage = Stage::Greeted(now);
        (self.patience, self.hang_ups) = (FIRST_PATIENCE, 0);
    }

    /// Called for a message: peers of old ZMTP versions, and those of a multicast, do not greet in any other way.
    /// Returns true if this is news.
    pub(super) fn heard(&mut self, now: Instant) -> bool {
        let is_news = self.is_unheard();
        if is_news {
            self.greeted(now);
        }
        is_news
    }

    #[inline]
    pub(super) fn is_unheard(&self) -> bool {
        matches!(self.stage, Stage::Opened(_) | Stage::Joined)
    }

    /// Ends an accepted connection, or all. Returns its other end, if that is known.
    pub(super) fn hang_up(&mut self, fd: Option<u32>) -> Option<SocketAddr> {
        self.line.as_mut()?.hang_up(fd)
    }

    /// The line, whose connection may have ended.
    #[inline]
    pub(super) fn line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// Ends a sender, whose peers may still take what was sent to them.
    pub(super) fn end(&mut self) {
        let now = Instant::now();
        // The socket lets go of connections that have ended, and then the monitor shows which those are.
        if let Some(line) = &self.line {
            let _ = patiently(|| line.socket().get_events());
        }
        while self.news(now).is_some() {}
        if let Some(line) = self.line.take() {
            line.linger(self.options.linger);
        }
    }

    /// True if the line stays: it is bound, or of a kind for which libzmq has no events.
    pub(super) fn is_standing(&self) -> bool {
        matches!(self.stage, Stage::Standing | Stage::Joined)
    }

    /// True if the connection is about to be begun anew.
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.stage, Stage::Resting(_))
    }

    /// True if the other end speaks ZeroMQ.
    pub(super) fn is_greeted(&self) -> bool {
        matches!(self.stage, Stage::Greeted(_))
    }

    pub(super) fn connects(&self) -> bool {
        self.endpoint.role_or(self.kind.role) == Role::Connect
    }

    /// The bound address, with the real port.
    pub(super) fn address(&self) -> Option<&str> {
        self.line.as_ref()?.address()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The known fault, if any.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.told.last().map(String::as_str)
    }

    /// Waits until the name is looked up.
    pub(super) fn wait_for_name(&self, deadline: Instant) -> Result<()> {
        match &self.stage {
            Stage::LookingUp(lookup) => lookup.wait(deadline).map(drop),
            _ => Ok(()),
        }
    }

    /// Tries the next address of this round, or begins another round after a wait.
    fn rest(&mut self, now: Instant) {
        let wait = match self.left.is_empty() {
            true => {
                self.patience = (self.patience * 2).min(PATIENCE);
                self.backoff.wait()
            }
            false => Duration::ZERO,
        };
        self.stage = Stage::Resting(now + wait.max(LEAST_REST));
    }

    fn begin(&mut self, now: Instant) -> Result<()> {
        if !self.left.is_empty() {
            return self.try_next(now);
        }
        let Some((host, port)) = self.endpoint.host(self.endpoint.role_or(self.kind.role)) else {
            self.left.push_back(self.endpoint.uri().to_owned());
            return self.try_next(now);
        };
        let wake = Arc::clone(&self.wake);
        self.stage = Stage::LookingUp(Lookup::begin(host, port, move || wake.wake()));
        self.looked_up(now)
    }

    fn looked_up(&mut self, now: Instant) -> Result<()> {
        let Stage::LookingUp(lookup) = &self.stage else {
            return Ok(());
        };
        match lookup.poll() {
            None => Ok(()),
            Some(Ok(mut addresses)) => {
                if !self.connects() {
                    addresses.sort_by_key(std::net::SocketAddr::is_ipv6);
                }
                self.left = addresses.into_iter().map(|address| self.endpoint.at(address)).collect();
                self.try_next(now)
            }
            Some(Err(e)) => {
                self.rest(now);
                Err(e.context(format!("cannot reach {}", self.endpoint)))
            }
        }
    }

    /// Tries the next address; rests if there is none, or if it cannot be tried.
    fn try_next(&mut self, now: Instant) -> Result<()> {
        let Some(uri) = self.left.pop_front() else {
            self.rest(now);
            return Ok(());
        };
        if let Err(e) = self.try_one(uri) {
            if e.kind() == ErrorKind::AddressInUse {
                self.left.clear();
            }
            if !self.left.is_empty() {
                return self.try_next(now);
            }
            self.rest(now);
            return Err(e);
        }
        let patience = if self.left.is_empty() { PATIENCE } else { self.patience };
        self.stage = match self.connects() && !self.endpoint.is_silent() {
            true => Stage::Trying(now + patience),
            false if self.endpoint.is_multicast() && !self.kind.sends => Stage::Joined,
            false => Stage::Standing,
        };
        self.look_at = Some(now + LOOK).filter(|_| self.line.as_ref().is_some_and(Line::needs_looks));
        Ok(())
    }

    fn try_one(&mut self, uri: String) -> Result<()> {
        if let Some(line) = self.line.as_mut().filter(|line| line.is_unused()) {
            room::check(&self.endpoint, Role::Connect)?;
            return line.retry(&self.endpoint, uri);
        }
        self.line = None;
        room::check(&self.endpoint, self.endpoint.role_or(self.kind.role))?;
        self.line = Some(Line::open(&self.endpoint, uri, &self.kind, &self.options)?);
        Ok(())
    }

    /// Why the line's connection ended, if that is a fault.
    fn verdict(&mut self) -> Option<Error> {
        let story = self.line.as_mut()?.take_story()?;
        self.hang_ups += u32::from(story.is_hang_up());
        story.verdict(&self.endpoint, &self.options, self.kind.sends, self.hang_ups)
    }
}
