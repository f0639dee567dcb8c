-- Goes before every script of the bans.
--
-- BANS: hash place .. identity -> "banned_until tokens_before revoked_until version". A place is a room, as "length:name", or
-- everywhere, as ":". What was lifted revokes no token, tokens_before being 0, and is remembered until revoked_until.
-- PER_PLACE: hash place -> how many it has
local BANS, PER_PLACE = unpack(KEYS)

local function read(line)
  local banned, before, until_s, version = string.match(line or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(banned), tonumber(before), tonumber(until_s), tonumber(version)
end

local function sweep(now)
  local all = redis.call('HGETALL', BANS)
  redis.call('DEL', PER_PLACE)
  for at = 1, #all, 2 do
    local banned, before, until_s = read(all[at + 1])
    if banned > now or (before > 0 and until_s > now) then
      local digits = string.match(all[at], '^(%d*):')
      redis.call('HINCRBY', PER_PLACE, string.sub(all[at], 1, #digits + 1 + (tonumber(digits) or 0)), 1)
    else
      redis.call('HDEL', BANS, all[at])
    end
  end
end

-- Refuses what is new rather than forgetting what somebody relies on.
local function make_place(place, now, bans_max, per_room_max)
  local function is_full()
    local here = tonumber(redis.call('HGET', PER_PLACE, place) or 0)
    return redis.call('HLEN', BANS) >= tonumber(bans_max) or (place ~= ':' and here >= tonumber(per_room_max))
  end
  if is_full() then sweep(tonumber(now)) end
  if is_full() then return false end
  redis.call('HINCRBY', PER_PLACE, place, 1)
  return true
end

-- Answers what it tells: the whole entry.
local function write(channel, place, room, identity, banned, before, until_s, version)
  local line = { decimal(banned), decimal(before), decimal(until_s), decimal(version) }
  redis.call('HSET', BANS, place .. identity, table.concat(line, ' '))
  local told = bytes(1, identity) .. (place ~= ':' and bytes(2, room) or '') .. number(4, before) .. number(5, until_s)
    .. number(6, banned) .. number(7, version)
  if channel ~= '' then redis.call('PUBLISH', channel, told) end
  return told
end

-- Also above what was lost.
local function next_version(version)
  return math.max(version + 1, now_ms())
end
