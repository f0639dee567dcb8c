-- Goes before every script of a room: its keys, and the rules that several scripts share.
--
-- x: hash of the room: view, seq, sid, created, metadata, empty, departure, cap, recorded: 1 while a recording of it is active,
--    auto: what it records by itself, if anything
-- p: hash identity -> Record (cluster.proto)
-- i: hash identity -> "generation version flags node sid"; under '' the sums of the flags. Behind the four flags there is a mark
--    of what host apps know of the session, where they are told
-- g: hash identity -> "version generation reason" of those who left; under '' what stands for everybody forgotten
-- ended: list of the views of the last histories that were ended
-- HOSTS goes before a node's id: set of the rooms where it hosts somebody
-- SEATED: zset node -> when it was last seen to have a lease, or began to host somebody
-- The rest: see egress.lua.
local X, P, I, G, ENDED, EGRESSES, RECORDERS, ROOMS, GENERATION, BANS, HOSTS, SEATED, OF_SERVER, CHANGED,
  UNHELD = unpack(KEYS)
-- Where host apps are told, for each destination besides:
-- due: zset outbox -> when somebody has to look into it
-- state: see outbox.lua
-- outbox: stream of Happening (cluster.proto), of this room
local CHANNEL, NAME, TTL_MS = ARGV[1], ARGV[2], ARGV[3]

local DEPARTED_MAX = 1024
local LIVES_REMEMBERED = 16
local PEOPLE_MAX = 50000

local OWN_KEYS = 15
local IS_TOLD = #KEYS > OWN_KEYS
local STARTED, FINISHED, RECORDED = 1, 2, 3
local OUTBOX_MAX = 1000
local OUTBOXES_MAX = 100000
local AUTOMATIC = ':w:egress'
-- Nobody has looked into it for so long that nobody will.
local OUTBOX_LIFE_MS = 24 * 60 * 60 * 1000

local function exists()
  return redis.call('EXISTS', X) == 1
end

local function seq()
  return redis.call('HGET', X, 'seq')
end

-- Who is counted, publishes, records, and keeps no room alive: four digits, here as numbers.
local function sums()
  local line = redis.call('HGET', I, '') or '0 0 0 0'
  local counted, publishers, recorders, dependents = string.match(line, '^(%d+) (%d+) (%d+) (%d+)$')
  return { tonumber(counted), tonumber(publishers), tonumber(recorders), tonumber(dependents) }
end

local function count(flags, by)
  local all = sums()
  for at = 1, 4 do
    all[at] = all[at] + by * tonumber(string.sub(flags, at, at))
  end
  redis.call('HSET', I, '', table.concat(all, ' '))
end

local function seat(identity)
  local line = redis.call('HGET', I, identity)
  if not line then return nil end
  local generation, version, flags, node, sid = string.match(line, '^(%d+) (%d+) (%d+) (%S+) (%S+)$')
  return { generation = generation, version = tonumber(version), flags = flags, node = node, sid = sid }
end

-- Whether somebody with these flags may sit here, in place of whoever holds the identity now.
local function has_seat(flags, held)
  local others = redis.call('HLEN', I) - (held and 2 or 1)
  if others >= PEOPLE_MAX then return false end
  local cap = tonumber(redis.call('HGET', X, 'cap'))
  local is_counted = string.sub(flags, 1, 1) == '1'
  local was_counted = held and string.sub(held.flags, 1, 1) == '1'
  return cap == 0 or not is_counted or was_counted or sums()[1] < cap
end

local function sit(identity, generation, version, flags, node, sid, record, held)
  -- Where to look should the node die, and that somebody must: it may have no lease here that could run out.
  if redis.call('SADD', HOSTS .. node, NAME) == 1 then redis.call('ZADD', SEATED, 'NX', decimal(now_ms()), node) end
  if held then count(held.flags, -1) end
  count(flags, 1)
  redis.call('HSET', I, identity, table.concat({ generation, version, flags, node, sid }, ' '))
  redis.call('HSET', P, identity, record)
end

local function info()
  local x = redis.call('HMGET', X, 'sid', 'created', 'metadata', 'empty', 'departure', 'cap', 'recorded', 'auto')
  local all = sums()
  local recorded = x[7] == '1'
  return bytes(1, x[1]) .. bytes(2, NAME) .. number(3, tonumber(x[2])) .. bytes(4, x[3]) .. number(5, tonumber(x[4]))
    .. number(6, tonumber(x[5])) .. number(7, tonumber(x[6])) .. number(8, all[1]) .. number(9, all[2])
    .. number(10, (recorded or all[3] > 0) and 1 or 0) .. number(11, recorded and 1 or 0)
    .. (x[8] and bytes(12, x[8]) or '')
end

-- Whoever begins what rooms record by themselves is told of those rooms, and not of recordings.
local function is_told(outbox, room)
  if string.sub(outbox, -#AUTOMATIC) ~= AUTOMATIC then return true end
  return not room and redis.call('HEXISTS', X, 'auto') == 1
end

-- Fills the outboxes, if somebody is told. `what`: the other fields of the Happening; `room` as it is unless it is given.
local function tell(what, room)
  for at = OWN_KEYS + 1, #KEYS, 3 do
    local DUE, STATE, OUTBOX = unpack(KEYS, at, at + 2)
    if is_told(OUTBOX, room) then
      local here = redis.call('XLEN', OUTBOX)
      local all = tonumber(redis.call('HGET', STATE, 'waiting') or 0)
      local is_full = here >= OUTBOX_MAX or all >= OUTBOXES_MAX
      if is_full then
        redis.call('HINCRBY', STATE, 'dropped', 1)
        redis.call('HINCRBY', STATE, 'waiting', 0 - redis.call('XTRIM', OUTBOX, 'MAXLEN', math.max(here - 1, 0)))
      end
      if here > 0 or not is_full then
        redis.call('XADD', OUTBOX, '*', 'h', bytes(1, room or info()) .. what)
        redis.call('HINCRBY', STATE, 'waiting', 1)
        redis.call('ZADD', DUE, 'NX', decimal(now_ms()), OUTBOX)
      end
      for _, key in ipairs({ DUE, STATE, OUTBOX }) do
        redis.call('PEXPIRE', key, OUTBOX_LIFE_MS)
      end
    end
  end
end

-- The only place where the history grows. Answers the change's number.
local function publish(change)
  local n = redis.call('HINCRBY', X, 'seq', 1)
  redis.call('PUBLISH', CHANNEL, '\9' .. redis.call('HGET', X, 'view') .. number(2, n) .. change)
  return decimal(n)
end

local function snapshot()
  local ended = redis.call('LRANGE', ENDED, 0, -1)
  return { redis.call('HGET', X, 'view'), seq(), info(), redis.call('HVALS', P), redis.call('HGETALL', G), ended }
end

-- No room outlives its hosts for long; those who host it touch it.
local function live()
  local empty = tonumber(redis.call('HGET', X, 'empty')) * 1000
  redis.call('PEXPIRE', X, decimal(math.max(tonumber(TTL_MS), empty)))
  for _, key in ipairs({ P, I, G }) do
    redis.call('PEXPIRE', key, TTL_MS)
  end
  redis.call('ZADD', ROOMS, decimal(now_ms()), NAME)
end

local function make(sid, view, created, metadata, empty, departure, cap, auto)
  redis.call('DEL', P, I, G)
  redis.call('HSET', X, 'view', view, 'seq', 0, 'sid', sid, 'created', created, 'metadata', metadata,
    'empty', empty, 'departure', departure, 'cap', cap)
  if auto ~= '' then redis.call('HSET', X, 'auto', auto) end
  redis.call('HSET', I, '', '0 0 0 0')
end

-- The last version of somebody who left, so that whoever comes back starts above it.
local function departed(identity)
  local line = redis.call('HGET', G, identity)
  redis.call('HDEL', G, identity)
  local version = line and string.match(line, '^(%d+)') or 0
  return math.max(tonumber(version), tonumber(redis.call('HGET', G, '') or 0))
end

local function remove(identity, held, reason)
  if redis.call('HLEN', G) > DEPARTED_MAX then
    local floor = 0
    for _, line in ipairs(redis.call('HVALS', G)) do
      floor = math.max(floor, tonumber(string.match(line, '^(%d+)')))
    end
    redis.call('DEL', G)
    redis.call('HSET', G, '', floor)
  end
  -- The departure itself is a change that others are told under the next version.
  redis.call('HSET', G, identity, table.concat({ held.version + 1, held.generation, reason }, ' '))
  redis.call('PEXPIRE', G, TTL_MS)
  local before = IS_TOLD and redis.call('HGET', P, identity)
  redis.call('HDEL', P, identity)
  redis.call('HDEL', I, identity)
  count(held.flags, -1)
  if before then tell(bytes(2, before) .. number(4, tonumber(reason))) end
  return publish(bytes(4, bytes(1, identity) .. bytes(2, held.sid) .. number(3, tonumber(held.generation))
    .. number(4, tonumber(reason))))
end

local function close(reason)
  publish(number(6, tonumber(reason)))
  if IS_TOLD then
    local people = redis.call('HVALS', P)
    redis.call('HSET', I, '', '0 0 0 0')
    for _, before in ipairs(people) do
      tell(bytes(2, before) .. number(4, tonumber(reason)))
    end
    tell(number(4, tonumber(reason)) .. number(5, FINISHED))
  end
  -- For hosts that did not hear it: this history is not lost, it ended.
  redis.call('LPUSH', ENDED, redis.call('HGET', X, 'view'))
  redis.call('LTRIM', ENDED, 0, LIVES_REMEMBERED - 1)
  redis.call('PEXPIRE', ENDED, TTL_MS)
  redis.call('DEL', X, P, I, G)
  redis.call('ZREM', ROOMS, NAME)
end
