-- The recordings of this server that are not over and that nobody records, the one that waits longest first, each with its room.
local UNHELD, OF_SERVER = unpack(KEYS)
local all = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', UNHELD, '-inf', decimal(now_ms()), 'LIMIT', 0, ARGV[1])) do
  local room = redis.call('HGET', OF_SERVER, id)
  if room then
    all[#all + 1] = room
    all[#all + 1] = id
  else
    redis.call('ZREM', UNHELD, id)
  end
end
return { 'ok', all }
