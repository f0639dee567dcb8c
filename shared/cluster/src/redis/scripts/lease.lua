-- Leases the outboxes in which something is due.
local DUE, STATE = unpack(KEYS)
local life_ms, most = unpack(ARGV)
local now = now_ms()
local leased = {}
for _, outbox in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', decimal(now), 'LIMIT', 0, most)) do
  local token = decimal(redis.call('HINCRBY', STATE, 'tokens', 1))
  redis.call('ZADD', DUE, decimal(now + life_ms), outbox)
  redis.call('HSET', STATE, outbox, token)
  leased[#leased + 1] = outbox
  leased[#leased + 1] = token
end
local dropped = redis.call('HGET', STATE, 'dropped') or '0'
redis.call('HDEL', STATE, 'dropped')
return { 'ok', leased, dropped }
