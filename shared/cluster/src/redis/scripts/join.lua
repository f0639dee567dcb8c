-- Seats somebody: bans, cap and duplicate identity are decided here, once.
local identity, sid, flags, node, version, participant = unpack(ARGV, 4, 9)
local issued, now, ban_here, ban_everywhere, trace, may_create = unpack(ARGV, 10, 15)

local is_revoked = false
for _, field in ipairs({ ban_everywhere, ban_here }) do
  local line = redis.call('HGET', BANS, field)
  if line then
    local banned, before, until_s = string.match(line, '^(%d+) (%d+) (%d+) ')
    if tonumber(banned) > tonumber(now) then return { 'banned' } end
    is_revoked = is_revoked or (tonumber(until_s) > tonumber(now) and tonumber(issued) < tonumber(before))
  end
end
if is_revoked then return { 'revoked' } end

if not exists() then
  if may_create ~= '1' then return { 'no room' } end
  make(unpack(ARGV, 16, 23))
  tell(number(5, STARTED))
end
local held = seat(identity)
if held and held.sid == sid then
  return { 'ok', redis.call('HGET', P, identity), false, snapshot() }
end
if not has_seat(flags, held) then
  live()
  return { 'full' }
end
-- One count for all rooms and their lives. The time in it makes it grow even when the count itself was lost.
local generation = math.max(tonumber(redis.call('GET', GENERATION) or 0) + 1, now_ms() * 256)
redis.call('SET', GENERATION, decimal(generation))
local last = held and held.version or departed(identity)
version = math.max(tonumber(version), last + 1)
local record = bytes(1, participant) .. number(2, generation) .. bytes(3, node) .. number(4, version)
local replaced = held and redis.call('HGET', P, identity) or false
sit(identity, decimal(generation), version, flags, node, sid, record, held)
live()
if replaced then tell(bytes(2, replaced) .. bytes(3, record)) end
publish(bytes(3, record) .. (trace == '' and '' or bytes(7, trace)))
return { 'ok', record, replaced, snapshot() }
