-- Adds a ban or changes it; of two revocations the later moment stands, for as long as either.
--
-- KEYS: hash place .. identity -> "banned_until before until"; hash place -> how many bans it has. A place is a room, as
-- "length:name", or everywhere, as ":".
local BANS, PER_PLACE = KEYS[1], KEYS[2]
local channel, place, room, identity, banned, before, until_s, now, bans_max, per_room_max = unpack(ARGV)
now = tonumber(now)

local function read(line)
  local a, b, c = string.match(line, '^(%d+) (%d+) (%d+)$')
  return tonumber(a), tonumber(b), tonumber(c)
end

local function line_of(a, b, c)
  return decimal(a) .. ' ' .. decimal(b) .. ' ' .. decimal(c)
end

local function is_full()
  local here = tonumber(redis.call('HGET', PER_PLACE, place) or 0)
  return redis.call('HLEN', BANS) >= tonumber(bans_max) or (place ~= ':' and here >= tonumber(per_room_max))
end

local function sweep()
  local all = redis.call('HGETALL', BANS)
  redis.call('DEL', PER_PLACE)
  for at = 1, #all, 2 do
    local banned_until, _, revoked_until = read(all[at + 1])
    if banned_until > now or revoked_until > now then
      local digits = string.match(all[at], '^(%d*):')
      redis.call('HINCRBY', PER_PLACE, string.sub(all[at], 1, #digits + 1 + (tonumber(digits) or 0)), 1)
    else
      redis.call('HDEL', BANS, all[at])
    end
  end
end

local field = place .. identity
local line = redis.call('HGET', BANS, field)
if not line then
  -- Refuses what is new rather than forgetting what somebody relies on.
  if is_full() then sweep() end
  if is_full() then return { 'too many' } end
  redis.call('HINCRBY', PER_PLACE, place, 1)
end
local had_banned, had_before, had_until = read(line or '0 0 0')
local told = bytes(1, identity) .. (place ~= ':' and bytes(2, room) or '')
if banned ~= '' then
  redis.call('HSET', BANS, field, line_of(tonumber(banned), had_before, had_until))
  told = told .. number(5, tonumber(banned))
else
  before, until_s = tonumber(before), tonumber(until_s)
  if had_until > now then
    before, until_s = math.max(before, had_before), math.max(until_s, had_until)
  end
  redis.call('HSET', BANS, field, line_of(had_banned, before, until_s))
  told = told .. number(4, before) .. number(5, until_s)
end
if channel ~= '' then redis.call('PUBLISH', channel, told) end
return { 'ok' }
