//! The scripts, one file each, with what several of them have in common before it.

use std::sync::LazyLock;

use redis::Script;

use super::shard::NamedScript;

/// A script with what goes before it.
macro_rules! scripts {
    ($($name:ident = [$($before:literal),+] $file:literal;)+) => {
        $(pub(super) static $name: LazyLock<NamedScript> = LazyLock::new(|| NamedScript {
            name: $file,
            script: Script::new(concat!(
                $(include_str!(concat!("scripts/", $before, ".lua")),)+
                include_str!(concat!("scripts/", $file, ".lua")),
            )),
        });)+
    };
}

scripts! {
    CREATE = ["encode", "prelude"] "create";
    JOIN = ["encode", "prelude"] "join";
    PUT = ["encode", "prelude"] "put";
    LEAVE = ["encode", "prelude"] "leave";
    SET_META = ["encode", "prelude"] "set_meta";
    SNAPSHOT = ["encode", "prelude"] "snapshot";
    INFO = ["encode", "prelude"] "info";
    DELETE = ["encode", "prelude"] "delete";
    TOUCH = ["encode", "prelude"] "touch";
    RESTORE = ["encode", "prelude"] "restore";
    REAP = ["encode", "prelude"] "reap";
    HOSTED = ["encode", "prelude"] "hosted";
    EGRESS_START = ["encode", "prelude", "egress"] "egress_start";
    EGRESS_CLAIM = ["encode", "prelude", "egress"] "egress_claim";
    EGRESS_RENEW = ["encode", "prelude", "egress"] "egress_renew";
    EGRESS_PUT = ["encode", "prelude", "egress"] "egress_put";
    EGRESS_LIST = ["encode", "prelude", "egress"] "egress_list";
    EGRESS_UNHELD = ["encode"] "egress_unheld";
    RENEW = ["encode"] "renew";
    RELEASE = ["encode"] "release";
    EXPIRED = ["encode", "seated"] "expired";
    UNLEASED = ["encode", "seated"] "unleased";
    LEASE = ["encode"] "lease";
    OUTBOX = ["encode"] "outbox";
    BAN = ["encode", "bans"] "ban";
    LIFT_BAN = ["encode", "bans"] "lift_ban";
    RESTORE_BANS = ["encode", "bans"] "restore_bans";
}

/// The scripts after which something may wait in an outbox.
pub(super) const FILLING: [&str; 8] =
    ["create", "join", "put", "leave", "delete", "reap", "egress_start", "egress_put"];
