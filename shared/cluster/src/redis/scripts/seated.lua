-- Who hosts people here and was not seen to have a lease for too long: it was lost, and the node died before it had another.
--
-- SEATED: zset node -> when it was last seen to have a lease, or began to host somebody
local function unleased(SEATED, patience_ms, alive)
  local now = now_ms()
  for _, node in ipairs(alive) do
    redis.call('ZADD', SEATED, 'XX', decimal(now), node)
  end
  return redis.call('ZRANGEBYSCORE', SEATED, '-inf', decimal(now - tonumber(patience_ms)))
end
