-- Puts back what a host knows and this server does not.
local view, known = ARGV[4], tonumber(ARGV[5])
-- Whoever is not in the next life was in the one that ended.
local is_ended = false
for _, ended in ipairs(redis.call('LRANGE', ENDED, 0, -1)) do
  is_ended = is_ended or ended == view
end
if not exists() then
  if is_ended then return { 'no room' } end
  make(ARGV[6], view, unpack(ARGV, 7, 12))
end
if redis.call('HGET', X, 'view') == view and tonumber(seq()) < known then
  redis.call('HSET', X, 'seq', decimal(known))
end
local over = {}
for at = 13, #ARGV, 7 do
  local identity, sid, generation, version, flags, node, record = unpack(ARGV, at, at + 6)
  local held = seat(identity)
  local line = redis.call('HGET', G, identity)
  local ended = line and tonumber(string.match(line, '^%d+ (%d+)')) or 0
  local own = tonumber(generation)
  local stored = held and tonumber(held.generation) or 0
  if ended >= own or stored > own or (is_ended and stored < own) then
    over[#over + 1] = sid
  elseif stored < own or held.version < tonumber(version) then
    redis.call('HDEL', G, identity)
    sit(identity, generation, version, flags, node, sid, record, held)
    if own > tonumber(redis.call('GET', GENERATION) or 0) then redis.call('SET', GENERATION, generation) end
    publish(bytes(3, record))
  end
end
live()
return { 'ok', over }
