local BANS, PER_PLACE = KEYS[1], KEYS[2]
local channel, place, identity, told = unpack(ARGV)
if redis.call('HDEL', BANS, place .. identity) == 0 then return { 'ok', 0 } end
if redis.call('HINCRBY', PER_PLACE, place, -1) <= 0 then redis.call('HDEL', PER_PLACE, place) end
if channel ~= '' then redis.call('PUBLISH', channel, told) end
return { 'ok', 1 }
