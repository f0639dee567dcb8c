-- Removes whoever a dead node hosted in this room.
local node, reason = unpack(ARGV, 4)
if exists() then
  for _, identity in ipairs(redis.call('HKEYS', I)) do
    local held = identity ~= '' and seat(identity)
    if held and held.node == node then remove(identity, held, reason) end
  end
end
redis.call('SREM', HOSTS .. node, NAME)
return { 'ok' }
