//! Where the hosts of an experiment stand: each in a network namespace of its own, all on one bridge; or, where there are
//! no namespaces, on addresses of loopback, where nothing can be cut.

use std::{net::Ipv4Addr, process::Command};

use anyhow::{Context, Result, ensure};

use crate::datagrams::Network;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    People,
    Balancer,
    Redis,
    /// Where the second Redis waits to take the first one's place.
    Standby,
    /// From 0.
    Node(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Loopback,
    Namespaces,
}

impl Host {
    fn place(self) -> u8 {
        match self {
            Self::People => 1,
            Self::Balancer => 2,
            Self::Redis => 3,
            Self::Standby => 4,
            Self::Node(at) => 11 + at as u8,
        }
    }

    fn name(self) -> String {
        format!("h{}", self.place())
    }
}

impl Site {
    /// Makes the hosts anew. Namespaces take a process that is alone in one, with a `/run` of its own (see
    /// [`super::enclosed`]).
    pub fn raise(self, nodes: usize) -> Result<()> {
        if self == Self::Loopback {
            return Ok(());
        }
        run(&["-all", "netns", "delete"])?;
        run(&["link", "set", "lo", "up"])?;
        if run(&["link", "show", BRIDGE]).is_ok() {
            run(&["link", "delete", BRIDGE])?;
        }
        run(&["link", "add", BRIDGE, "type", "bridge"])?;
        run(&["address", "add", &format!("{}/24", self.address(Host::People)), "dev", BRIDGE])?;
        run(&["link", "set", BRIDGE, "up"])?;
        // Every client transport has an address; they are all ours.
        run(&["route", "replace", "local", &format!("{CLIENTS}/16"), "dev", "lo"])?;
        let nodes = (0..nodes).map(Host::Node);
        for host in [Host::Balancer, Host::Redis, Host::Standby].into_iter().chain(nodes) {
            let (name, cable) = (host.name(), format!("v{}", host.place()));
            // A namespace that was deleted may take a while, and its cable with it.
            let _ = run(&["link", "delete", &cable]);
            run(&["netns", "add", &name])?;
            run(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            run(&["link", "set", &cable, "master", BRIDGE, "up"])?;
            run(&["-n", &name, "address", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
            run(&["-n", &name, "link", "set", "lo", "up"])?;
            run(&["-n", &name, "link", "set", "eth0", "up"])?;
            run(&["-n", &name, "route", "add", "default", "via", &self.address(Host::People).to_string()])?;
        }
        Ok(())
    }

    pub fn address(self, host: Host) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::new(127, 77, 0, host.place()),
            Self::Namespaces => Ipv4Addr::new(10, 77, 0, host.place()),
        }
    }

    /// Where the people's media comes from.
    pub fn clients(self) -> Network {
        match self {
            Self::Loopback => Network::LOOPBACK,
            Self::Namespaces => Network { device: BRIDGE, base: CLIENTS },
        }
    }

    /// A program as it is started on that host. The process has the id of the program.
    pub fn command(self, host: Host, program: &str) -> Command {
        match self {
            Self::Namespaces if host != Host::People => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &host.name(), program]);
                command
            }
            _ => Command::new(program),
        }
    }

    /// From now on nothing that one sends reaches the other, and nobody is told: the frames go to a card that nobody has.
    pub fn cut(self, from: Host, to: Host) -> Result<()> {
        let neighbour = self.address(to).to_string();
        neigh(from, &["replace", &neighbour, "lladdr", NOBODY, "nud", "permanent"])
    }

    pub fn heal(self, from: Host, to: Host) -> Result<()> {
        neigh(from, &["del", &self.address(to).to_string()])
    }

    /// What an address movement of a failover does: one host's address is the other's from now on.
    pub fn take_over(self, from: Host, by: Host) -> Result<()> {
        let address = format!("{}/24", self.address(from));
        run(&["-n", &from.name(), "address", "del", &address, "dev", "eth0"])?;
        run(&["-n", &by.name(), "address", "add", &address, "dev", "eth0"])?;
        // Nobody announces it here, so everybody forgets where the address was.
        let hosts = [Host::Balancer, Host::Node(0), Host::Node(1), Host::Node(2)];
        for host in hosts {
            run(&["-n", &host.name(), "neigh", "flush", "dev", "eth0"])?;
        }
        run(&["neigh", "flush", "dev", BRIDGE])
    }
}

fn neigh(at: Host, what: &[&str]) -> Result<()> {
    let name = at.name();
    let (place, device): (&[&str], _) = if at == Host::People { (&[], BRIDGE) } else { (&["-n", &name], "eth0") };
    run(&[place, &["neigh"], what, &["dev", device]].concat())
}

fn run(words: &[&str]) -> Result<()> {
    let ran = Command::new("ip").args(words).output().context("ip, of the package iproute2")?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "ip {}: {}", words.join(" "), said.trim());
    Ok(())
}

const BRIDGE: &str = "br0";
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 0);
const NOBODY: &str = "02:00:00:00:de:ad";
