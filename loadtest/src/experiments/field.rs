//! What every experiment needs: three nodes behind HAProxy with a Redis between them, and people in one room.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    NODES, Plan,
    people::{MARK, People, ROOM},
    processes::{Balancer, Node, NodePlan, Placement, Redis},
    signalling::Caller,
    site::{Host, Site},
};
use crate::http;

pub struct Field {
    pub site: Site,
    /// By the nodes' places.
    plans: Vec<NodePlan>,
    pub people: People,
    pub balancer: Balancer,
    /// With the mark that its sessions' ids carry.
    pub nodes: Vec<(Node, String)>,
    pub redis: Redis,
    pub folder: PathBuf,
}

impl Field {
    pub fn new(plan: &Plan, placement: Placement) -> Result<Self> {
        Self::with(plan, placement, |_, _| {})
    }

    /// With nodes that differ from the others, by their place.
    pub fn with(plan: &Plan, placement: Placement, differ: impl Fn(usize, &mut NodePlan)) -> Result<Self> {
        let folder = tempfile::tempdir_in(&plan.folder)?.keep();
        let redis = Redis::start(plan.site, Host::Redis, &folder)?;
        let node_plan = NodePlan {
            site: plan.site,
            binary: plan.binary.clone(),
            folder: folder.clone(),
            drain_deadline: Duration::from_secs(20),
            clock_off_h: 0,
            recordings: None,
        };
        let mut plans = vec![node_plan; NODES];
        let mut nodes = Vec::new();
        for (at, plan) in plans.iter_mut().enumerate() {
            differ(at, plan);
            nodes.push((Node::start(plan, at)?, String::new()));
        }
        let balancer = Balancer::start(plan.site, &folder, placement)?;
        let people = People::new(plan.site, balancer.address, plan.seed)?;
        let mut field = Self { site: plan.site, plans, people, balancer, nodes, redis, folder };
        for at in 0..NODES {
            field.learn_mark(at)?;
        }
        Ok(field)
    }

    /// Has so many people join, until all hear each other as they want to.
    pub fn fill(&mut self, people: usize) -> Result<()> {
        self.people.invite(people)?;
        let done = self.people.run_until(FILL_WITHIN, |people| people.all_hear() && people.agree())?;
        if done.is_none() {
            let deaf = self.people.all.iter().filter(|one| one.ears.values().any(|ear| ear.since_ns == 0));
            let deaf: Vec<_> = deaf.map(|one| format!("{} {:?} {}", one.identity, one.state, one.lost_why)).collect();
            bail!("not everybody is in the call: {:?}, {deaf:?} do not hear all", self.people.disagreement());
        }
        // Where they are is shared by records, and links have settled.
        self.people.run_for(Duration::from_secs(1))?;
        self.people.mark();
        Ok(())
    }

    /// The node with the most people, and who they are.
    pub fn fullest(&self) -> (usize, Vec<usize>) {
        let on = |at: usize| self.nodes.get(at).map(|(_, mark)| self.people.on(mark)).unwrap_or_default();
        let fullest = (0..NODES).max_by_key(|at| on(*at).len()).unwrap_or(0);
        (fullest, on(fullest))
    }

    pub fn on(&self, at: usize) -> Vec<usize> {
        self.nodes.get(at).map(|(_, mark)| self.people.on(mark)).unwrap_or_default()
    }

    pub fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        self.node(at)?.process.signal(signal)
    }

    pub fn node(&self, at: usize) -> Result<&Node> {
        Ok(&self.nodes.get(at).context("a node")?.0)
    }

    pub fn kill(&mut self, at: usize) -> Result<()> {
        let (node, _) = self.nodes.get_mut(at).context("a node")?;
        self.people.meanwhile(|| node.process.kill())
    }

    /// Cuts what one of these hosts sends to the other, or heals it, for all pairs.
    pub fn cut(&mut self, pairs: &[(Host, Host)]) -> Result<()> {
        let site = self.site;
        self.people.meanwhile(|| pairs.iter().try_for_each(|(from, to)| site.cut(*from, *to)))
    }

    pub fn heal(&mut self, pairs: &[(Host, Host)]) -> Result<()> {
        let site = self.site;
        self.people.meanwhile(|| pairs.iter().try_for_each(|(from, to)| site.heal(*from, *to)))
    }

    /// Another one in its place, once that has ended.
    pub fn restart(&mut self, at: usize) -> Result<()> {
        let plan = self.plans.get(at).context("a node")?;
        let node = self.people.meanwhile(|| Node::start(plan, at))?;
        *self.nodes.get_mut(at).context("a node")? = (node, String::new());
        self.learn_mark(at)
    }

    pub fn http(&self, at: usize) -> Result<SocketAddr> {
        Ok(self.node(at)?.http)
    }

    /// Whom a node lists.
    pub fn listed(&self, at: usize) -> Result<BTreeSet<String>> {
        let answer = self.call(at, "ListParticipants", &json!({ "room": ROOM }))?;
        let all = answer.get("participants").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(all.iter().filter_map(|one| one.get("identity")?.as_str().map(Into::into)).collect())
    }

    pub fn call(&self, at: usize, method: &str, argument: &Value) -> Result<Value> {
        http::call(self.http(at)?, &self.people.admin_token()?, &format!("RoomService/{method}"), argument)
    }

    /// People go on meanwhile.
    pub fn call_egress(&mut self, at: usize, method: &str, argument: &Value) -> Result<Value> {
        let (server, token) = (self.http(at)?, self.people.admin_token()?);
        self.people.meanwhile(|| http::call(server, &token, &format!("Egress/{method}"), argument))
    }

    /// Runs until every node lists exactly those who are there.
    pub fn until_listed(&mut self, within: Duration) -> Result<Option<Duration>> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            let here: BTreeSet<String> =
                self.people.all.iter().filter(|one| one.is_here()).map(|one| one.identity.clone()).collect();
            if (0..NODES).all(|at| self.listed(at).is_ok_and(|listed| listed == here)) {
                return Ok(Some(begun.elapsed()));
            }
            self.people.run_for(Duration::from_millis(100))?;
        }
        Ok(None)
    }

    /// How long after a moment each of these was back, if they were.
    pub fn until_back(&mut self, who: &[usize], since_ns: i64, within: Duration) -> Result<Vec<Option<Duration>>> {
        let back = |people: &People, at: usize| people.back_ns(at).filter(|back| *back > since_ns);
        self.people.run_until(within, |people| who.iter().all(|at| back(people, *at).is_some()))?;
        let nanos = |back: i64| Duration::from_nanos(u64::try_from(back - since_ns).unwrap_or(0));
        Ok(who.iter().map(|at| back(&self.people, *at).map(nanos)).collect())
    }

    fn learn_mark(&mut self, at: usize) -> Result<()> {
        let token = self.people.token("probe", "elsewhere")?;
        let sid = Caller::new(self.http(at)?, &token)?.seated(Duration::from_secs(5))?;
        let mark = sid.get(MARK).context("a session's id with its node's mark")?.to_owned();
        self.nodes.get_mut(at).context("a node")?.1 = mark;
        Ok(())
    }
}

const FILL_WITHIN: Duration = Duration::from_secs(30);
