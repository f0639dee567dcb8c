-- KEYS: zset node -> end of its lease; hash node -> NodeInfo.
local LEASES, INFOS = unpack(KEYS)
local node, life_ms, info = unpack(ARGV)
local now = now_ms()
-- Somebody renews every second. If nobody did for half a life, this server was away, or follows one that went on without
-- it: then a lease that ran out says nothing, and each begins anew.
local latest = redis.call('ZREVRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
if latest and now + life_ms / 2 > tonumber(latest) then
  for _, other in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    redis.call('ZADD', LEASES, decimal(now + life_ms), other)
  end
end
local was_held = redis.call('ZSCORE', LEASES, node) and 1 or 0
redis.call('ZADD', LEASES, decimal(now + tonumber(life_ms)), node)
redis.call('HSET', INFOS, node, info)
local nodes = redis.call('ZRANGEBYSCORE', LEASES, decimal(now), '+inf')
return { 'ok', was_held, redis.call('HMGET', INFOS, unpack(nodes)) }
