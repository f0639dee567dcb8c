local channel, place, room, identity = unpack(ARGV)
local banned, before, until_s, version = read(redis.call('HGET', BANS, place .. identity))
if banned == 0 and before == 0 then return { 'ok' } end
return { 'ok', write(channel, place, room, identity, 0, 0, math.max(banned, until_s), next_version(version)) }
