-- Adds a ban or changes it; of two revocations the later moment stands, for as long as either.
local channel, place, room, identity, banned, before, until_s, now, bans_max, per_room_max = unpack(ARGV)
local line = redis.call('HGET', BANS, place .. identity)
if not line and not make_place(place, now, bans_max, per_room_max) then return { 'too many' } end
local had_banned, had_before, had_until, version = read(line)
if banned ~= '' then
  had_banned = tonumber(banned)
else
  if had_before == 0 or had_until <= tonumber(now) then had_before, had_until = 0, 0 end
  had_before, had_until = math.max(had_before, tonumber(before)), math.max(had_until, tonumber(until_s))
end
return { 'ok', write(channel, place, room, identity, had_banned, had_before, had_until, next_version(version)) }
