-- One room of a list; what is listed and not there any more is dropped from the list.
if not exists() then
  redis.call('ZREM', ROOMS, NAME)
  return { 'no room' }
end
return { 'ok', info() }
