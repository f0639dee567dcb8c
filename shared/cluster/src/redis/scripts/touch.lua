if not exists() then return { 'no room' } end
live()
return { 'ok' }
