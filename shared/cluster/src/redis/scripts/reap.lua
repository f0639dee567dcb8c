-- Removes whoever a dead node hosted in this room. 1 if nobody is left in it.
local node, reason = unpack(ARGV, 4)
local removed = false
if exists() then
  for _, identity in ipairs(redis.call('HKEYS', I)) do
    local held = identity ~= '' and seat(identity)
    if held and held.node == node then
      remove(identity, held, reason)
      removed = true
    end
  end
end
redis.call('SREM', HOSTS .. node, NAME)
-- Besides people there are the sums.
return { 'ok', removed and redis.call('HLEN', I) == 1 and 1 or 0 }
