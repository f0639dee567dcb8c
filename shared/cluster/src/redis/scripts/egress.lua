-- Goes before every script of the recordings of a room.
--
-- EGRESSES: hash id -> Egress (cluster.proto)
-- RECORDERS: hash id -> "epoch version status room_sid changed_ms leased_until_ms node life"; epoch, node and life of the last
--    recorder, 0, "-" and 0 if there was none
-- OF_SERVER: hash id -> room; CHANGED: zset id -> last change, by which the former is swept
-- UNHELD: zset id -> when its lease runs out, of those that are not over
local KEPT_MS = 24 * 60 * 60 * 1000
local PER_ROOM_MAX = 100
local ALL_MAX = 100000
local SWEPT_AT_ONCE = 100
local STARTING, ACTIVE, ENDING, COMPLETE = 0, 1, 2, 3

local function read(line)
  local epoch, version, status, sid, changed, leased, node, life =
    string.match(line, '^(%d+) (%d+) (%d) (%S+) (%d+) (%d+) (%S+) (%d+)$')
  return { epoch = tonumber(epoch), version = tonumber(version), status = tonumber(status), sid = sid,
    changed = tonumber(changed), leased = tonumber(leased), node = node, life = life }
end

local function stored(id)
  local line = redis.call('HGET', RECORDERS, id)
  return line and read(line)
end

local function is_over(status)
  return status >= COMPLETE
end

local function may_become(from, to)
  if from == STARTING then return to == STARTING or to == ACTIVE or to == 4 or to == 5 end
  if from == ACTIVE then return to ~= STARTING and to ~= COMPLETE end
  if from == ENDING then return to ~= STARTING and to ~= ACTIVE end
  return false
end

-- Kept from now on for as long as is said above.
local function keep(id, one)
  local now = now_ms()
  one.changed = now
  redis.call('HSET', RECORDERS, id, table.concat({ decimal(one.epoch), one.version, one.status, one.sid,
    decimal(now), decimal(one.leased), one.node, one.life }, ' '))
  redis.call('HSET', OF_SERVER, id, NAME)
  redis.call('ZADD', CHANGED, decimal(now), id)
  if is_over(one.status) then
    redis.call('ZREM', UNHELD, id)
  else
    redis.call('ZADD', UNHELD, decimal(one.leased), id)
  end
  for _, key in ipairs({ EGRESSES, RECORDERS }) do
    redis.call('PEXPIRE', key, KEPT_MS)
  end
end

local function is_forgotten(one)
  return one.changed + KEPT_MS <= now_ms()
end

local function forget(id)
  redis.call('HDEL', EGRESSES, id)
  redis.call('HDEL', RECORDERS, id)
  redis.call('HDEL', OF_SERVER, id)
  redis.call('ZREM', CHANGED, id)
  redis.call('ZREM', UNHELD, id)
end

local function make_place()
  local late = decimal(now_ms() - KEPT_MS)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', CHANGED, '-inf', late, 'LIMIT', 0, SWEPT_AT_ONCE)) do
    redis.call('HDEL', OF_SERVER, id)
    redis.call('ZREM', CHANGED, id)
    redis.call('ZREM', UNHELD, id)
  end
  local lines = redis.call('HGETALL', RECORDERS)
  local oldest, since
  local left = #lines / 2
  for at = 1, #lines, 2 do
    local id, one = lines[at], read(lines[at + 1])
    if is_forgotten(one) then
      forget(id)
      left = left - 1
    elseif is_over(one.status) and (not since or one.changed < since) then
      oldest, since = id, one.changed
    end
  end
  if left >= PER_ROOM_MAX and oldest then
    forget(oldest)
    left = left - 1
  end
  return left < PER_ROOM_MAX and redis.call('HLEN', OF_SERVER) < ALL_MAX
end

-- Whether something of this life of the room is being recorded: those in it shall know.
local function show()
  if not exists() then return end
  local sid, recorded = redis.call('HGET', X, 'sid'), '0'
  for _, line in ipairs(redis.call('HVALS', RECORDERS)) do
    local one = read(line)
    if one.status == ACTIVE and one.sid == sid then recorded = '1' end
  end
  if (redis.call('HGET', X, 'recorded') or '0') ~= recorded then
    redis.call('HSET', X, 'recorded', recorded)
    publish(bytes(5, info()))
  end
end

-- The room may be gone: only what it is called is told of it.
local function tell_of(one, egress)
  tell(number(5, RECORDED) .. bytes(6, egress), bytes(1, one.sid) .. bytes(2, NAME))
end
